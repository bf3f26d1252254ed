"""The alert rules in deploy/ use metrics that exist, and tell whoever is paged what to do.

An alert on a renamed metric never fires, and nobody notices. So every name and every label value in the rules is looked up in what
a running gateway serves, and in docs/metrics.md.
"""

import re

import pytest
import yaml
from harness.gateway import REPOSITORY
from harness.station import Station

ALERTS = REPOSITORY / "deploy" / "prometheus-alerts.yaml"
RULES = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
NAME = re.compile(r"ocpp_gateway_\w+")


def base(name: str) -> str:
    """The metric that a histogram's series belongs to."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def served(page: str) -> set[str]:
    return {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}


@pytest.fixture(scope="module")
def documented() -> set[str]:
    tables = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    return {f"ocpp_gateway_{name}" for name in re.findall(r"`([a-z_]+)`", tables)}


async def test_every_metric_of_an_alert_is_served_and_documented(gateway, documented):
    node = gateway()
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
        names = served(node.get("/metrics").text)
    wanted = {base(name) for rule in RULES for name in NAME.findall(rule["expr"])}
    assert len(wanted) >= 10
    assert wanted - names == set(), "not served"
    assert wanted - documented == set(), "not documented"
    described = {base(name) for rule in RULES for name in NAME.findall(rule["annotations"]["description"])}
    assert described - names == set(), "a description names a metric that is not served"


def test_every_state_in_an_alert_exists(gateway):
    page = gateway().get("/metrics").text
    for rule in RULES:
        for state in re.findall(r'state="(\w+)"', rule["expr"]):
            assert f'state="{state}"' in page, rule["alert"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule):
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 100
    for key in re.findall(
        r"(?<![.\w])(?:bus|session|handshake|node)\.[a-z_.]*[a-z]", rule["annotations"]["description"]
    ):
        assert f"`{key}`" in (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8"), key
