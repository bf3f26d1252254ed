"""An OCPP 2.0.1 or 2.1 station on the PyPI packages `ocpp` and `websockets`: boots, charges a car and disconnects.

    python docs/examples/station_201.py [URL] [IDENTITY] [VERSION] [--stay]

URL is the gateway's listener and defaults to ws://127.0.0.1:9000/ocpp, IDENTITY to CP-002. VERSION is 2.0.1 (the default) or
2.1. With --stay it remains connected and accepts Reset, until Ctrl-C.
"""

import argparse
import asyncio
import contextlib
from datetime import UTC, datetime
from uuid import uuid4

from ocpp import v21, v201
from ocpp.charge_point import ChargePoint
from ocpp.routing import on
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LIBRARY = {"2.0.1": v201, "2.1": v21}
TOKEN = {"id_token": "04A224B2C51D80", "type": "ISO14443"}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def station_of(library, identity: str, connection) -> ChargePoint:
    class Station(library.ChargePoint):
        @on("Reset")
        def reset(self, **request):
            print(f"{'Reset':18} <- {request}")
            return library.call_result.Reset(status="Accepted")

    return Station(identity, connection)


async def ask(station: ChargePoint, request):
    """Prints every CALL and its answer. `suppress=False` turns a CALLERROR into an exception."""
    answer = await station.call(request, suppress=False)
    print(f"{type(request).__name__:18} -> {answer}")
    return answer


async def charge(station: ChargePoint, call) -> None:
    boot = await ask(
        station,
        call.BootNotification(charging_station={"vendor_name": "Vendor", "model": "Model 2"}, reason="PowerUp"),
    )
    if boot.status != "Accepted":
        raise SystemExit(f"the gateway says {boot.status}: try again in {boot.interval} s")
    await ask(
        station,
        call.StatusNotification(timestamp=now(), connector_status="Occupied", evse_id=1, connector_id=1),
    )
    await ask(station, call.Authorize(id_token=TOKEN))

    transaction = str(uuid4())
    steps = [
        ("Started", "Authorized", 1000.0, {"evse": {"id": 1, "connector_id": 1}, "id_token": TOKEN}),
        ("Updated", "MeterValuePeriodic", 1250.5, {}),
        ("Ended", "StopAuthorized", 1500.0, {"id_token": TOKEN}),
    ]
    for number, (event, reason, energy, more) in enumerate(steps):
        sample = {"value": energy, "measurand": "Energy.Active.Import.Register"}
        await ask(
            station,
            call.TransactionEvent(
                event_type=event,
                timestamp=now(),
                trigger_reason=reason,
                seq_no=number,
                transaction_info={"transaction_id": transaction},
                meter_value=[{"timestamp": now(), "sampled_value": [sample]}],
                **more,
            ),
        )


async def main(url: str, identity: str, version: str, stay: bool) -> None:
    library = LIBRARY[version]
    async with connect(f"{url}/{identity}", subprotocols=[f"ocpp{version}"]) as connection:
        station = station_of(library, identity, connection)
        reader = asyncio.create_task(station.start())
        await charge(station, library.call)
        if stay:
            print("connected until Ctrl-C")
            with contextlib.suppress(ConnectionClosed):
                await reader
        reader.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:9000/ocpp")
    parser.add_argument("identity", nargs="?", default="CP-002")
    parser.add_argument("version", nargs="?", default="2.0.1", choices=LIBRARY)
    parser.add_argument("--stay", action="store_true")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(**vars(parser.parse_args())))
