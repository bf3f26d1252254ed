"""`GET /api/v1/openapi.json`: the document describes what the admin listener does.

Proves: it is a valid OpenAPI 3.1 document; every path in it is served, and methods that are not in it are refused with the ones that
are; real responses, successes and errors, have the documented status, media type and schema; and a wrong document would be noticed.
"""

import copy

import pytest
import requests
from harness.station import Station
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH")
STATION = "/api/v1/stations/{id}"
COMMAND = "/api/v1/commands/{id}"
BATCH = {"batchId": "b-1", "to": {"tag": "depot"}, "action": "ClearCache"}
RESET = {"action": "Reset", "payload": {"type": "Soft"}, "timeoutMs": 200}

# (method, path in the document) -> requests and their status: (value of {id}, query, body, status).
CASES = {
    ("GET", "/"): [("", "", None, 200)],
    ("GET", "/livez"): [("", "", None, 200)],
    ("GET", "/readyz"): [("", "", None, 200)],
    ("GET", "/health"): [("", "", None, 200)],
    ("GET", "/stats"): [("", "", None, 200)],
    ("GET", "/metrics"): [("", "", None, 200)],
    ("GET", "/api/v1/openapi.json"): [("", "", None, 200)],
    ("GET", "/api/v1/stations"): [
        ("", "", None, 200),
        ("", "limit=1", None, 200),
        ("", "limit=0", None, 400),
        ("", "version=2.1", None, 200),
        ("", "version=1.7", None, 400),
        ("", "conected=true", None, 400),
    ],
    ("GET", STATION): [
        ("HERE", "", None, 200),
        ("AWAY", "", None, 200),
        ("NEW", "", None, 404),
        ("%ff", "", None, 400),
    ],
    ("PUT", STATION + "/registration"): [
        ("AWAY", "", {"status": "Pending"}, 200),
        ("AWAY", "", {"status": "pending"}, 400),
        ("NEW", "", {"status": "Accepted"}, 409),
    ],
    ("POST", STATION + "/commands"): [
        ("HERE", "", RESET, 200),
        ("AWAY", "", RESET | {"ifOffline": "fail", "expiresAt": "2100-01-01T00:00:00Z"}, 200),
        ("AWAY", "", RESET | {"action": "Nonsense"}, 200),
        ("ANYWHERE", "", RESET, 200),
        ("HERE", "", {"payload": {}}, 400),
        ("HERE", "", {"action": "DataTransfer", "payload": {"data": "x" * (2 << 20)}}, 413),
        ("AWAY", "", RESET | {"commandId": "kept", "ifOffline": "queue"}, 202),
        ("AWAY", "", RESET | {"commandId": "ended"}, 200),
        ("HERE", "", RESET | {"commandId": "ended"}, 409),
    ],
    ("POST", STATION + "/answers"): [
        ("HERE", "", {"messageId": "1", "payload": {}}, 404),
        ("HERE", "", {"messageId": "1"}, 400),
    ],
    ("PUT", STATION + "/tags"): [
        ("AWAY", "", {"tags": ["depot"]}, 200),
        ("AWAY", "", {"tags": [""]}, 400),
        ("NEW", "", {"tags": ["depot"]}, 409),
    ],
    ("GET", STATION + "/settings"): [("AWAY", "", None, 200), ("x" * 300, "", None, 400)],
    ("PUT", STATION + "/settings"): [
        ("AWAY", "", {"lenient": True, "idle_timeout": "1h", "subprotocols": ["ocpp1.6"]}, 200),
        ("AWAY", "", {"idle_timeout": "0s"}, 400),
        ("NEW", "", {"lenient": True}, 409),
    ],
    ("GET", "/api/v1/deviations"): [("", "station=HERE", None, 200), ("", "limit=0", None, 400)],
    ("GET", "/api/v1/rules"): [("", "", None, 200)],
    ("DELETE", STATION): [("HERE", "", None, 409), ("NEVER", "", None, 404), ("AWAY", "", None, 204)],
    ("POST", "/api/v1/commands"): [
        ("", "", BATCH, 202),
        ("", "", BATCH, 202),
        ("", "", BATCH | {"batchId": "slow", "to": {"stations": ["AWAY", "HERE"]}, "ratePerSecond": 0.01}, 202),
        ("", "", BATCH | {"to": {"some": True}}, 400),
        ("", "", BATCH | {"ratePerSecond": 0}, 400),
    ],
    ("GET", "/api/v1/batches/{id}"): [("b-1", "", None, 200), ("never", "", None, 404)],
    ("DELETE", "/api/v1/batches/{id}"): [("slow", "", None, 202), ("never", "", None, 404)],
    ("GET", COMMAND): [("kept", "", None, 200), ("ended", "", None, 200), ("never", "", None, 404)],
    ("DELETE", COMMAND): [("kept", "", None, 200), ("ended", "", None, 409), ("never", "", None, 404)],
    ("GET", "/api/v1/events"): [("", "from=earliest&follow=false", None, 200), ("", "from=x", None, 400)],
    # Last: it ends the session that the others use.
    ("POST", STATION + "/disconnect"): [
        ("AWAY", "", None, 404),
        ("HERE", "", {"sessionId": "0"}, 409),
        ("HERE", "", {"why": "?"}, 400),
        ("HERE", "", {"reason": "a test"}, 202),
    ],
}


@pytest.fixture(scope="module")
def node(shared_gateway):
    return shared_gateway({"registration": {"max_stations": 2}, "admin": {"max_connections": 4}})


@pytest.fixture(scope="module")
def document(node):
    response = node.get("/api/v1/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


def operations(document):
    """(method, path) -> operation."""
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method.upper() in METHODS
    }


def disagreements(document, operation, response):
    """How a response disagrees with the document, one line each."""
    answers = operation["responses"]
    status = str(response.status_code) if str(response.status_code) in answers else "default"
    if status not in answers:
        return [f"status {response.status_code} is not in the document"]
    if status == "204":
        return ["204 has a body"] if response.content or "content" in answers[status] else []
    kind = response.headers["content-type"].partition(";")[0]
    if kind not in answers[status]["content"]:
        return [f"{kind} is not among {list(answers[status]['content'])}"]
    value = response.json() if kind.endswith("json") else response.text
    return violations(document, answers[status]["content"][kind]["schema"], value)


def violations(document, schema, value):
    """How a value violates a schema of the document."""
    # Its references are resolved against the document's components.
    whole = schema | {"components": document["components"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(value)]


def ask(node, method, path, id, query, body):
    url = node.admin_url + path.replace("{id}", id) + (f"?{query}" if query else "")
    return requests.request(method, url, json=body, timeout=10)


def test_it_is_a_valid_document(document):
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def test_every_path_has_a_case(document):
    assert set(operations(document)) == set(CASES)


async def test_responses_are_as_documented(node, document):
    here = await Station.connect(node, "HERE")
    await here.boot()
    async with await Station.connect(node, "AWAY", "2.0.1") as away:
        await away.boot()
    node.await_events(lambda events: events, "it to disconnect", station="AWAY", type="ocpp.station.disconnected")
    known = operations(document)
    for (method, path), cases in CASES.items():
        operation = known[method, path]
        for case in cases:
            response = ask(node, method, path, *case[:3])
            assert response.status_code == case[3], f"{method} {path} {case}: {response.text}"
            assert disagreements(document, operation, response) == [], f"{method} {path} {case}: {response.text}"
            if case[2] is not None and response.ok:
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                assert violations(document, body, case[2]) == []
    assert (await here.closed())[0] == 1000


def test_a_wrong_document_is_noticed(node, document):
    other = copy.deepcopy(document)
    other["components"]["schemas"]["Health"]["properties"]["version"]["type"] = "integer"
    other["components"]["schemas"]["Problem"]["required"].append("instance")
    del other["paths"]["/livez"]["get"]["responses"]["200"], other["paths"]["/livez"]["get"]["responses"]["default"]
    for path, part in (
        ("/health", "is not of type 'integer'"),
        ("/livez", "status 200 is not in the document"),
        ("/api/v1/stations?limit=0", "'instance' is a required property"),
    ):
        operation = operations(other)["GET", path.partition("?")[0]]
        (reason,) = disagreements(other, operation, node.get(path))
        assert part in reason


@pytest.mark.parametrize("path", sorted({path for _, path in CASES}))
def test_undocumented_methods_are_refused(node, path):
    offered = {method for method, known in CASES if known == path}
    for method in set(METHODS) - offered:
        response = ask(node, method, path, "CP-1", "", None)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == offered
        assert response.json()["status"] == 405


def test_the_page_for_people_names_every_path(node, document):
    page = node.get("/").text
    for method, path in operations(document):
        assert any(line.split()[:2] == [method, path] for line in page.splitlines()), f"{method} {path}"
