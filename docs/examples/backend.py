"""A backend in sixty lines: authorises tags, assigns transaction ids, starts charging at a station.

    python docs/examples/backend.py [STATION] [BROKERS]

STATION defaults to CP-001, BROKERS to 127.0.0.1:19092 (`make kafka`). Configure the gateway to delegate two actions:

    [answers.Authorize]
    by = "backend"
    [answers.StartTransaction]
    by = "backend"
"""

import itertools
import json
import sys
import time
import uuid
from typing import Any

from confluent_kafka import Consumer, Producer

TAGS = {"TAG-1", "TAG-2"}
transaction_ids = itertools.count(int(time.time()))


def tag_info(payload: dict[str, Any]) -> dict[str, Any]:
    return {"idTagInfo": {"status": "Accepted" if payload["idTag"] in TAGS else "Invalid"}}


ANSWERS = {
    "Authorize": tag_info,
    "StartTransaction": lambda payload: {"transactionId": next(transaction_ids)} | tag_info(payload),
}


def main(station: str = "CP-001", brokers: str = "127.0.0.1:19092") -> None:
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
    # Refresh often, to find topics that are created after the start.
    settings = {"auto.offset.reset": "earliest", "topic.metadata.refresh.interval.ms": 1000}
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "example-backend"} | settings)
    consumer.subscribe(["ocpp.events", "ocpp.command-results"])

    def tell(station: str, what: dict[str, Any]) -> None:
        producer.produce("ocpp.commands", json.dumps({"stationId": station} | what), key=station)
        producer.poll(0)

    command = {"commandId": str(uuid.uuid4()), "action": "RemoteStartTransaction", "ifOffline": "queue"}
    tell(station, command | {"payload": {"idTag": "TAG-1", "connectorId": 1}})
    answered: set[str] = set()  # An event may arrive twice, with the same id; a real backend stores these.
    try:
        while True:
            message = consumer.poll(0.1)
            producer.poll(0)
            if message is None or message.error():
                continue
            event = json.loads(message.value())
            data = event["data"]
            if event["type"] == "ocpp.command.result" and data["commandId"] == command["commandId"]:
                print(f"{event['subject']} {data['action']}: {data['status']} {data.get('payload', data.get('error'))}")
            asked = event["type"] == "ocpp.message.received" and data.get("answeredBy") == "backend"
            if asked and data["action"] in ANSWERS and event["id"] not in answered:
                answered.add(event["id"])
                answer = {"messageId": data["messageId"], "sessionId": data["sessionId"]}
                tell(event["subject"], answer | {"payload": ANSWERS[data["action"]](data["payload"])})
                print(f"{event['subject']} {data['action']}: answered")
    finally:
        producer.flush(10)
        consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
