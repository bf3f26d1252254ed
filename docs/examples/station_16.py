"""An OCPP 1.6 station on the PyPI packages `ocpp` and `websockets`: boots, charges a car and disconnects.

    python docs/examples/station_16.py [URL] [IDENTITY] [--stay]

URL is the gateway's listener and defaults to ws://127.0.0.1:9000/ocpp, IDENTITY to CP-001. With --stay it remains connected
and accepts Reset and RemoteStartTransaction, until Ctrl-C.
"""

import argparse
import asyncio
import contextlib
from datetime import UTC, datetime

from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LoudStation(ChargePoint):
    """Prints every CALL and its answer. `suppress=False` turns a CALLERROR into an exception."""

    async def ask(self, request):
        answer = await self.call(request, suppress=False)
        print(f"{type(request).__name__:18} -> {answer}")
        return answer

    @on("Reset")
    def reset(self, **request):
        print(f"{'Reset':18} <- {request}")
        return call_result.Reset(status="Accepted")

    @on("RemoteStartTransaction")
    def remote_start(self, **request):
        print(f"{'RemoteStart':18} <- {request}")
        return call_result.RemoteStartTransaction(status="Accepted")


async def charge(station: LoudStation) -> None:
    boot = await station.ask(call.BootNotification(charge_point_vendor="Vendor", charge_point_model="Model 1"))
    if boot.status != "Accepted":
        raise SystemExit(f"the gateway says {boot.status}: try again in {boot.interval} s")
    await station.ask(call.StatusNotification(connector_id=1, error_code="NoError", status="Preparing"))
    await station.ask(call.Authorize(id_tag="TAG-1"))
    start = await station.ask(call.StartTransaction(connector_id=1, id_tag="TAG-1", meter_start=1000, timestamp=now()))
    for energy in ("1250.5", "1500.0"):
        sample = {"value": energy, "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
        await station.ask(
            call.MeterValues(
                connector_id=1,
                transaction_id=start.transaction_id,
                meter_value=[{"timestamp": now(), "sampled_value": [sample]}],
            )
        )
    await station.ask(
        call.StopTransaction(transaction_id=start.transaction_id, meter_stop=1500, timestamp=now(), reason="Local")
    )


async def main(url: str, identity: str, stay: bool) -> None:
    async with connect(f"{url}/{identity}", subprotocols=["ocpp1.6"]) as connection:
        station = LoudStation(identity, connection)
        reader = asyncio.create_task(station.start())
        await charge(station)
        if stay:
            print("connected until Ctrl-C")
            with contextlib.suppress(ConnectionClosed):
                await reader
        reader.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:9000/ocpp")
    parser.add_argument("identity", nargs="?", default="CP-001")
    parser.add_argument("--stay", action="store_true")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(**vars(parser.parse_args())))
