"""A running gateway serves the metrics of docs/metrics.md as the page states them: name, type, labels and help text."""

import re

import pytest
from harness.gateway import REPOSITORY
from harness.station import Station

PREFIX = "ocpp_gateway_"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*) \| (?P<text>.*) \|$", re.MULTILINE)
SERIES = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? \S+$", re.MULTILINE)
# Only with Kafka.
CONSUMER = "commands_consumer_"


@pytest.fixture(scope="module")
def documented() -> dict[str, re.Match]:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    return {PREFIX + row["name"]: row for row in ROW.finditer(page)}


async def test_what_is_served_is_what_the_page_states(gateway, documented):
    node = gateway()
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
        page = node.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\w+) (.*)$", page, re.MULTILINE))
    assert types.keys() == helps.keys()
    for name, kind in types.items():
        assert documented[name]["type"] == kind, name
        assert documented[name]["text"].startswith(helps[name] + "."), name
    for series in SERIES.finditer(page):
        name = series["name"]
        if name not in types:
            name = re.sub(r"_(bucket|sum|count)$", "", name)
        labels = set(re.findall(r'(\w+)="', series["labels"] or "")) - {"le"}
        assert labels == set(re.findall(r"`(\w+)`", documented[name]["labels"])), series[0]
    without_labels = {name for name, row in documented.items() if not row["labels"]}
    missing = without_labels - types.keys()
    assert all(name.startswith(PREFIX + CONSUMER) for name in missing), missing
