"""The backend of docs/examples against the built gateway and a real Kafka; the station is the PyPI client `ocpp`.

Proves both directions: a remote start waits for a disconnected station, reaches it when it boots, and its result is printed; the
station's tag is authorised, its transaction gets an id from the backend, and an unknown tag is refused.
"""

import asyncio
import subprocess
import sys
import threading
import time

from harness.gateway import REPOSITORY
from harness.station import Station
from harness.waiting import wait_for
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, RemoteStartStopStatus


class Charger(ChargePoint):
    """A station that accepts a remote start."""

    started: tuple[str, int] | None = None

    @on(Action.remote_start_transaction)
    def start_transaction(self, id_tag: str, connector_id: int, **_: object) -> call_result.RemoteStartTransaction:
        self.started = (id_tag, connector_id)
        return call_result.RemoteStartTransaction(status=RemoteStartStopStatus.accepted)


async def test_the_example_starts_charging_at_a_station_that_comes_later(own_kafka, gateway):
    own_kafka.start()
    began = int(time.time()) - 1
    asked = {action: {"by": "backend", "deadline": "20s"} for action in ("Authorize", "StartTransaction")}
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": own_kafka.address}}, "answers": asked})
    script = REPOSITORY / "docs" / "examples" / "backend.py"
    backend = subprocess.Popen(
        [sys.executable, "-u", script, "CP-001", own_kafka.address], stdout=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(backend.stdout), daemon=True)
    try:
        reader.start()
        await asyncio.to_thread(
            wait_for, lambda: node.metric("ocpp_gateway_commands_kept") == 1, "the command to be queued", 30
        )
        async with await Station.connect(node, "CP-001") as connection:
            station = Charger("CP-001", connection)
            listening = asyncio.create_task(station.start())
            answer = await station.call(call.BootNotification(charge_point_vendor="V", charge_point_model="M"))
            assert answer.status == "Accepted"
            await asyncio.to_thread(wait_for, lambda: lines, "the result to be printed", 30)
            for tag, status in (("TAG-1", "Accepted"), ("STOLEN", "Invalid")):
                answer = await station.call(call.Authorize(id_tag=tag))
                assert answer.id_tag_info["status"] == status
            start = call.StartTransaction(
                connector_id=1, id_tag="TAG-1", meter_start=0, timestamp="2026-11-20T10:00:00Z"
            )
            answer = await station.call(start)
            assert answer.id_tag_info["status"] == "Accepted"
            # The backend numbers transactions by Unix time; the gateway counts from 2020.
            assert answer.transaction_id > began
            listening.cancel()
        assert station.started == ("TAG-1", 1)
        assert backend.poll() is None, "it keeps running"
    finally:
        backend.terminate()
        backend.wait(10)
    reader.join(10)
    assert lines == [
        "CP-001 RemoteStartTransaction: answered {'status': 'Accepted'}\n",
        "CP-001 Authorize: answered\n",
        "CP-001 Authorize: answered\n",
        "CP-001 StartTransaction: answered\n",
    ]
    answered = node.metric("ocpp_gateway_backend_answers_total", outcome="answered")
    assert answered == 3, "none by the fallback"
