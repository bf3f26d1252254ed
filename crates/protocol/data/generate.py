#!/usr/bin/env python3
"""Reduces the official OCPP JSON schemas to the facts this crate checks.

Usage: generate.py DIRECTORY, where DIRECTORY holds v16/schemas, v201/schemas and v21/schemas as
in the package `ocpp` of the Python Package Index. Writes 1.6.shapes, 2.0.1.shapes and 2.1.shapes
beside itself. The notation is described in README.md. A keyword that the notation cannot express
stops the run, so that nothing is lost unnoticed.
"""

import json
import pathlib
import sys

VERSIONS = {"1.6": "v16", "2.0.1": "v201", "2.1": "v21"}

# Describe without constraining, or constrain what is implied.
IGNORED = {
    "$schema", "$id", "id", "title", "comment", "description", "javaType", "default",
    "additionalItems", "definitions",
}


class Shapes:
    """The types of one version, collected from all its schemas."""

    def __init__(self, version):
        self.version = version
        self.lines = {}

    def add_schema(self, heading, schema):
        name = heading.split()[1] + heading.split()[0].capitalize()
        self.lines[heading] = self.fields(schema, schema.get("definitions", {}), name)

    def fields(self, schema, definitions, path):
        self.check(schema, {"type", "properties", "required", "additionalProperties"}, path)
        required = set(schema.get("required", []))
        unknown = required - set(schema.get("properties", {}))
        if unknown:
            raise SystemExit(f"{path}: required but not defined: {unknown}")
        out = []
        for field, value in schema.get("properties", {}).items():
            if field == "customData":
                continue
            mark = "!" if field in required else ""
            out.append(f"{field}{mark} {self.kind(value, definitions, f'{path}.{field}')}")
        implied = self.version != "1.6"
        if implied != ("customData" in schema.get("properties", {})):
            raise SystemExit(f"{path}: customData is not where it is implied")
        if schema.get("additionalProperties", True) is not False:
            raise SystemExit(f"{path}: open object")
        return ", ".join(out)

    def kind(self, schema, definitions, path):
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/definitions/")
            return self.named(name, definitions)
        match schema.get("type"):
            case "string" if "enum" in schema:
                self.check(schema, {"type", "enum", "additionalProperties", "maxLength"}, path)
                return "(" + "|".join(schema["enum"]) + ")"
            case "string":
                self.check(schema, {"type", "maxLength", "format"}, path)
                if schema.get("format") == "date-time":
                    return "t"
                return f"s{schema.get('maxLength', '')}"
            case "integer" | "number" as number:
                if schema.get("multipleOf") == 0.1:
                    self.check(schema, {"type", "multipleOf"}, path)
                    return "d"
                self.check(schema, {"type", "minimum", "maximum"}, path)
                low, high = schema.get("minimum"), schema.get("maximum")
                bounds = "" if low is None and high is None else f"{text(low)}..{text(high)}"
                return number[0] + bounds
            case "boolean":
                self.check(schema, {"type"}, path)
                return "b"
            case "array":
                self.check(schema, {"type", "items", "minItems", "maxItems"}, path)
                item = self.kind(schema["items"], definitions, path)
                return f"[{text(schema.get('minItems'))}..{text(schema.get('maxItems'))} {item}]"
            case "object":
                self.define(f"type {path}", self.fields(schema, definitions, path))
                return path
            case None:
                self.check(schema, set(), path)
                return "any"
            case other:
                raise SystemExit(f"{path}: type {other}")

    def named(self, name, definitions):
        if name == "CustomDataType":
            raise SystemExit("CustomDataType outside customData")
        schema = definitions[name]
        if schema.get("type") != "object":
            kind = self.kind(schema, definitions, name)
            return self.define(f"kind {name}", kind) if kind.startswith("(") else kind
        return self.define(f"type {name}", self.fields(schema, definitions, name))

    def define(self, heading, body):
        """Schemas repeat the definitions they use, not always alike; variants get a number."""
        variant, number = heading, 1
        while self.lines.setdefault(variant, body) != body:
            number += 1
            variant = f"{heading}~{number}"
        return variant.split()[1]

    def check(self, schema, known, path):
        rest = set(schema) - known - IGNORED
        if rest:
            raise SystemExit(f"{path}: cannot express {rest}")

    def write(self, path):
        order = {"kind": 0, "type": 1, "request": 2, "response": 3}
        lines = sorted(self.lines.items(), key=lambda line: (order[line[0].split()[0]], line[0]))
        head = f"# OCPP {self.version}. Generated by generate.py; see README.md. Do not edit.\n"
        path.write_text(head + "".join(f"{heading}: {body}".rstrip() + "\n" for heading, body in lines))


def text(bound):
    if bound is None:
        return ""
    return str(int(bound)) if bound == int(bound) else repr(bound)


def heading(version, stem):
    """Which message a schema file describes."""
    if stem.endswith("Response"):
        return "response " + stem.removesuffix("Response")
    return "request " + (stem if version == "1.6" else stem.removesuffix("Request"))


def corrected(version, head, schema):
    """Known faults of the published schemas, each with where it is stated."""
    if (version, head) == ("1.6", "request StopTransaction"):
        # Errata sheet of 1.6-J, section 2: the reason is optional.
        schema["required"] = [field for field in schema["required"] if field != "reason"]
    if version == "1.6" and head in ("request StopTransaction", "request MeterValues"):
        # The same: both spellings of the unit are in use.
        for spelling in ("Celsius", "Celcius"):
            add_to_enum(schema, "unit", spelling)
    return schema


def add_to_enum(schema, field, value):
    for name, child in schema.get("properties", {}).items():
        if name == field and value not in child["enum"]:
            child["enum"].append(value)
        add_to_enum(child.get("items", child), field, value)


def main():
    source = pathlib.Path(sys.argv[1])
    for version, folder in VERSIONS.items():
        shapes = Shapes(version)
        for file in sorted((source / folder / "schemas").glob("*.json")):
            schema = json.loads(file.read_text(encoding="utf-8-sig"))
            head = heading(version, file.stem)
            shapes.add_schema(head, corrected(version, head, schema))
        shapes.write(pathlib.Path(__file__).with_name(f"{version}.shapes"))


if __name__ == "__main__":
    main()
