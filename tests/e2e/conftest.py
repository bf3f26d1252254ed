"""Fixtures of the end-to-end tests.

`gateway`   a factory: `gateway(config)` starts the built binary and returns a `harness.gateway.Gateway`. After the test it must
            not have panicked and, if it is still running, must exit on SIGTERM with code 0.
`shared_gateway` the same for a module: for tables of cases that use different stations of one gateway.
`kafka`     a real broker, started once for all tests that want one; a test that pauses it resumes it.
`topics`    topics on `kafka` that no other test uses, as the gateway's `[topics]` section.
`backends`  a factory: `backends()` is a `harness.backend.Backend` on `kafka`, `backends(broker)` one on another broker.
`own_kafka` a broker of the test's own, not started: for tests that start it late, stop it or kill it.

The report of a failed test includes the logs of its gateways.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.backend import Backend
from harness.broker import Broker
from harness.gateway import Gateway

LOG_CHARACTERS = 20_000
_logs = pytest.StashKey[list[Gateway]]()


@pytest.fixture
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """`gateway(config=None, start=True, **start_options)`; call it again for a second node."""
    yield from _gateways(request.node, tmp_path)


@pytest.fixture(scope="module")
def shared_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Gateway]]:
    """As `gateway`; what it starts is stopped after the module's last test."""
    yield from _gateways(request.node, tmp_path_factory.mktemp("shared"))


def _gateways(node: pytest.Item | pytest.Collector, directory: Path) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []
    node.stash[_logs] = started

    def factory(config: dict[str, Any] | None = None, *, start: bool = True, **options: Any) -> Gateway:
        one = Gateway(directory / f"gateway-{len(started) + 1}", config)
        started.append(one)
        return one.start(**options) if start else one

    yield factory

    codes = []
    try:
        for one in started:
            if one.running:
                codes.append(one.sigterm())
    finally:
        for one in started:
            one.kill9()
    assert not any(codes), f"after SIGTERM the gateway ended with {codes}"
    for one in started:
        assert "panicked at" not in one.log_text(), "the gateway panicked"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        yield broker.start()
    finally:
        broker.clean()


@pytest.fixture
def topics(kafka: Broker) -> dict[str, str]:
    return kafka.fresh_topics()


@pytest.fixture
def backends(request: pytest.FixtureRequest) -> Iterator[Callable[..., Backend]]:
    with contextlib.ExitStack() as opened:

        def factory(broker: Broker | None = None, **options: Any) -> Backend:
            backend = Backend(broker or request.getfixturevalue("kafka"), **options)
            opened.callback(backend.close)
            return backend

        yield factory


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "kafka")
    try:
        yield broker
    finally:
        broker.clean()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for one in (one for node in item.listchain() for one in node.stash.get(_logs, [])):
            report.sections.append((f"log of {one.directory.name}", one.log_text()[-LOG_CHARACTERS:]))
    return report
