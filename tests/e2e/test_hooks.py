"""A backend behind a URL: requests, the meaning of responses, and the cost of a backend that fails."""

import asyncio
import json
import threading
import time

import pytest
from harness.certificates import self_signed
from harness.contract import member_text
from harness.hook import Hook, payload
from harness.station import Station
from harness.waiting import free_port, wait_for

ACCEPTED = '{ "idTagInfo" : {"status":"\\u0041ccepted"} }'
TOKEN = '{"idTag" : "\\u0054AG"}'
STOP = '{"transactionId": 1, "meterStop": 0, "timestamp": "2026-01-01T00:00:00Z"}'


def asking(url, hooks=None, action="Authorize", **keys):
    return {"answers": {action: {"url": url} | keys}, "hooks": hooks or {}}


async def connected(node, identity="CP-1"):
    station = await Station.connect(node, identity)
    await station.boot()
    return station


def outcomes(node, outcome, action="Authorize"):
    return node.metric("ocpp_gateway_backend_answers_total", action=action, outcome=outcome)


def requests(node, result, action="Authorize"):
    return node.metric("ocpp_gateway_hook_requests_total", action=action, result=result)


async def test_a_hook_is_asked_and_its_answer_given_byte_for_byte(gateway, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with Hook(lambda _: payload(ACCEPTED)) as hook:
        node = gateway(asking(hook.url, bearer_token_file=str(token)))
        async with await connected(node) as station:
            given = await station.call("Authorize", TOKEN, id="é")
            assert given[:2] == [3, "é"]
            assert member_text(station.frames[-1][1], 2) == ACCEPTED
        [asked] = hook.asked
        [event] = [event for event in node.events(type="ocpp.message.received") if "answerUntil" in event.data]
        assert member_text(asked.text, "payload") == TOKEN
        members = {
            name: event.data[name] for name in ("sessionId", "ocppVersion", "messageId", "action", "answerUntil")
        }
        assert asked.json == members | {"stationId": "CP-1", "payload": {"idTag": "TAG"}}
        assert asked.headers["authorization"] == "Bearer s3cret"
        assert asked.headers["content-type"] == "application/json"
        assert outcomes(node, "answered") == 1 == requests(node, "answered")


async def test_a_hook_may_refuse_with_an_error(gateway):
    with Hook(lambda _: (200, '{"error":{"code":"GenericError","description":"no","details":{"n":1}}}')) as hook:
        node = gateway(asking(hook.url))
        async with await connected(node) as station:
            assert await station.call("Authorize", TOKEN, id="a") == [4, "a", "GenericError", "no", {"n": 1}]
        assert outcomes(node, "error") == 1


async def test_a_hook_may_defer_the_answer(gateway):
    with Hook(lambda _: (204, "")) as hook:
        node = gateway(asking(hook.url))
        async with await connected(node) as station:
            call = asyncio.create_task(station.call("Authorize", TOKEN, id="a"))
            await asyncio.to_thread(wait_for, lambda: requests(node, "deferred") == 1, "the hook to be asked")
            body = {"messageId": "a", "payload": json.loads(ACCEPTED)}
            assert node.post("/api/v1/stations/CP-1/answers", body).status_code == 200
            assert await call == [3, "a", json.loads(ACCEPTED)]


async def test_a_hook_that_fails_is_asked_again_within_the_deadline(gateway):
    responses = iter([(503, "{}"), (429, ""), (500, "oh"), payload(ACCEPTED)])
    with Hook(lambda _: next(responses)) as hook:
        node = gateway(asking(hook.url, {"retry_pause": "50ms"}))
        async with await connected(node) as station:
            given = await station.call("Authorize", TOKEN, id="a")
            assert given[2] == {"idTagInfo": {"status": "Accepted"}}
        assert len(hook.asked) == 4
        pauses = [later.at - earlier.at for earlier, later in zip(hook.asked, hook.asked[1:], strict=False)]
        assert all(pause > least for pause, least in zip(pauses, [0.02, 0.05, 0.1], strict=True)), pauses
        assert (requests(node, "serverError"), requests(node, "tooManyRequests")) == (2, 1)


@pytest.mark.parametrize(
    ("response", "result"),
    [
        ((404, "{}"), "refused"),
        ((302, ""), "refused"),
        ((200, ""), "invalid"),
        ((200, '{"payload":[]}'), "invalid"),
        ((200, '{"status":"Accepted"}'), "invalid"),
        (payload('{"idTagInfo":{"status":"Fine"}}'), "answered"),
        ((200, '{"payload":{"x":"' + "x" * 5000 + '"}}'), "invalid"),
    ],
)
async def test_an_invalid_response_triggers_the_fallback_immediately(gateway, response, result):
    with Hook(lambda _: response) as hook:
        node = gateway(asking(hook.url, {"max_response_size": "4KiB"}, deadline="10s"))
        async with await connected(node) as station:
            given = await station.call("Authorize", TOKEN, id="a", timeout=3)
            assert given[2] == {"idTagInfo": {"status": "Invalid"}}
        assert requests(node, result) == 1 == outcomes(node, "hookFailed") == len(hook.asked)


TOKEN_2X = {"idToken": "TAG", "type": "Central"}
START = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": "2026-01-01T00:00:00Z"}
DECISIONS = {
    "1.6": {"Authorize": {"idTag": "T"}, "StartTransaction": START},
    "2.0.1": {"Authorize": {"idToken": TOKEN_2X}, "TransactionEvent": {"eventType": "Started", "idToken": TOKEN_2X}},
}
REPORTS = {
    "1.6": {"StopTransaction": {"idTag": "T", "transactionId": 1}, "MeterValues": {}},
    "2.0.1": {"TransactionEvent": {"eventType": "Ended", "idToken": TOKEN_2X}, "MeterValues": {}},
}


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
@pytest.mark.parametrize("failure", ["dead", "wrong shape"])
async def test_without_a_decision_nobody_charges_and_no_report_is_refused(gateway, version, failure):
    decisions, reports = DECISIONS[version], REPORTS[version]
    with Hook(lambda _: (200, '{"status":"Accepted"}')) as hook:
        url = hook.url if failure == "wrong shape" else f"http://127.0.0.1:{free_port()}/"
        answers = {action: {"url": url, "deadline": "10s"} for action in ["BootNotification", *decisions, *reports]}
        node = gateway({"answers": answers, "hooks": {"breaker_failures": 1}})
        assert node.put("/api/v1/stations/CP-1/registration", {"status": "Accepted"}).status_code == 200
        async with await Station.connect(node, "CP-1", version) as station:
            assert (await station.boot())["status"] == "Accepted", "the operator's word"
            for action, request in decisions.items():
                kind, _, given = await station.call(action, request, timeout=3)
                assert (kind, given["idTagInfo" if version == "1.6" else "idTokenInfo"]) == (3, {"status": "Invalid"})
                if action == "StartTransaction":
                    assert given["transactionId"] > 0
            for action, request in reports.items():
                kind, _, given = await station.call(action, request, timeout=3)
                assert kind == 3
                assert "Invalid" not in json.dumps(given)
        async with await Station.connect(node, "CP-2", version) as station:
            assert (await station.boot())["status"] == "Pending", "nobody has said anything about it"


async def test_the_refusals_status_can_be_chosen(gateway):
    node = gateway(asking(f"http://127.0.0.1:{free_port()}/", {"breaker_failures": 1}, fallback_status="Blocked"))
    async with await connected(node) as station:
        assert (await station.call("Authorize", TOKEN))[2] == {"idTagInfo": {"status": "Blocked"}}


async def test_a_slow_hook_costs_no_more_than_the_deadline(gateway):
    release = threading.Event()

    def slowly(_):
        release.wait(10)
        return payload(ACCEPTED)

    with Hook(slowly) as hook:
        node = gateway(asking(hook.url, deadline="500ms"))
        async with await connected(node) as station:
            began = time.monotonic()
            given = await station.call("Authorize", TOKEN, id="a")
            assert 0.49 < time.monotonic() - began < 1.5
            assert given[2] == {"idTagInfo": {"status": "Invalid"}}
            release.set()
            await station.silence(0.3)
        assert outcomes(node, "deadline") == 1
        wait_for(lambda: node.metric("ocpp_gateway_hooks_in_flight") == 0, "no request to be left")


async def test_an_unreachable_hook_opens_the_breaker(gateway):
    port = free_port()
    hooks = {"breaker_failures": 3, "breaker_pause": "1s", "retry_pause": "20ms"}
    node = gateway(asking(f"http://127.0.0.1:{port}/", hooks, deadline="10s"))
    async with await connected(node) as station:
        given = await station.call("Authorize", TOKEN, id="0")
        assert given[2] == {"idTagInfo": {"status": "Invalid"}}
        assert requests(node, "unreachable") == 3, "then the breaker opened, and the CALL got its fallback"
        assert node.metric("ocpp_gateway_hook_breaker_open", action="Authorize") == 1
        began = time.monotonic()
        for number in range(20):
            await station.call("Authorize", TOKEN, id=f"open-{number}")
        if time.monotonic() - began < 0.9:
            assert requests(node, "unreachable") == 3
        assert outcomes(node, "breakerOpen") >= 20
        assert "left alone" in node.log_text()
        with Hook(lambda _: payload(ACCEPTED), port=port) as hook:
            async with asyncio.timeout(10):
                while (await station.call("Authorize", TOKEN))[2] != {"idTagInfo": {"status": "Accepted"}}:
                    pass
            for number in range(2):
                given = await station.call("Authorize", TOKEN, id=f"again-{number}")
                assert given[2] == {"idTagInfo": {"status": "Accepted"}}
            assert len(hook.asked) == 3
        assert node.metric("ocpp_gateway_hook_breaker_open", action="Authorize") == 0


async def test_requests_in_flight_and_waiting_are_bounded_and_connections_are_reused(gateway):
    release = threading.Event()

    def when_released(_):
        release.wait(10)
        return payload(ACCEPTED)

    with Hook(when_released) as hook:
        hooks = {"max_in_flight": 2, "max_waiting": 3, "request_timeout": "10s"}
        node = gateway(asking(hook.url, hooks, deadline="10s"))
        stations = [await connected(node, f"CP-{number}") for number in range(8)]
        calls = [asyncio.create_task(station.call("Authorize", TOKEN, id="a")) for station in stations]
        await asyncio.to_thread(wait_for, lambda: outcomes(node, "overloaded") == 3, "three to be turned away")
        await asyncio.to_thread(wait_for, lambda: node.metric("ocpp_gateway_hooks_waiting") == 3, "three to wait")
        await asyncio.to_thread(wait_for, lambda: len(hook.asked) == 2, "two requests at the hook")
        assert node.metric("ocpp_gateway_hooks_in_flight") == 2
        release.set()
        given = await asyncio.gather(*calls)
        statuses = sorted(one[2]["idTagInfo"]["status"] for one in given)
        assert statuses == ["Accepted"] * 5 + ["Invalid"] * 3
        for number in range(5):
            for station in stations:
                assert (await station.call("Authorize", TOKEN, id=f"b{number}"))[2] == json.loads(ACCEPTED)
        assert hook.at_once == 2
        # A connection may be opened while another becomes free.
        assert hook.connections < len(hook.asked) / 5
        for station in stations:
            await station.close()


async def ask_and_vanish(node, hook):
    """A station whose connection breaks while the hook is working."""
    async with await connected(node) as station:
        await station.send(f'[2,"a","StopTransaction",{STOP}]')
        await asyncio.to_thread(wait_for, lambda: hook.asked, "the request")
        station.abort()


async def test_a_hooks_answer_finds_the_station_on_its_next_connection(gateway):
    release = threading.Event()

    def when_released(_):
        release.wait(10)
        return payload(ACCEPTED)

    with Hook(when_released) as hook:
        node = gateway(asking(hook.url, {"request_timeout": "10s"}, "StopTransaction", deadline="10s"))
        await ask_and_vanish(node, hook)
        release.set()
        kept = "ocpp_gateway_backend_deliveries_total"
        await asyncio.to_thread(wait_for, lambda: node.metric(kept, outcome="kept") == 1, "the answer to be kept")
        async with await Station.connect(node, "CP-1") as station:
            assert (await station.call("StopTransaction", STOP, id="a"))[2] == json.loads(ACCEPTED)
        assert len(hook.asked) == 1


async def test_a_hook_that_refused_while_the_station_was_away_is_asked_again(gateway):
    release = threading.Event()
    responses = iter([(404, "{}"), payload(ACCEPTED)])

    def when_released(_):
        release.wait(10)
        return next(responses)

    with Hook(when_released) as hook:
        node = gateway(asking(hook.url, {"request_timeout": "10s"}, "StopTransaction", deadline="10s"))
        await ask_and_vanish(node, hook)
        abandoned = "ocpp_gateway_answers_awaited"
        await asyncio.to_thread(wait_for, lambda: node.metric(abandoned) == 0, "the session's end")
        release.set()
        await asyncio.to_thread(wait_for, lambda: requests(node, "refused", "StopTransaction") == 1, "the refusal")
        async with await Station.connect(node, "CP-1") as station:
            assert (await station.call("StopTransaction", STOP, id="a"))[2] == json.loads(ACCEPTED)
        first, second = (asked.json for asked in hook.asked)
        assert first["sessionId"] != second["sessionId"]
        assert outcomes(node, "abandoned", "StopTransaction") == 1


async def test_one_slow_url_does_not_use_up_the_permits_of_another(gateway):
    release = threading.Event()

    def slowly(_):
        release.wait(10)
        return payload("{}")

    with Hook(slowly) as slow, Hook(lambda _: payload(ACCEPTED)) as quick:
        config = asking(quick.url, {"max_in_flight": 1, "max_waiting": 1, "request_timeout": "10s"})
        config["answers"]["DataTransfer"] = {"url": slow.url, "deadline": "10s"}
        node = gateway(config)
        stations = [await connected(node, f"CP-{number}") for number in range(3)]
        for station in stations[:2]:
            await station.send('[2,"d","DataTransfer",{"vendorId":"V"}]')
        await asyncio.to_thread(
            wait_for, lambda: node.metric("ocpp_gateway_hooks_waiting") == 1, "the slow URL's queue"
        )
        assert (await stations[2].call("Authorize", TOKEN, id="a"))[2] == json.loads(ACCEPTED)
        release.set()
        for station in stations:
            await station.close()


async def test_tls_is_verified_against_the_systems_roots(gateway, tmp_path):
    certificate, tls = self_signed(tmp_path)
    with Hook(lambda _: payload(ACCEPTED), tls=tls) as hook:
        trusting = gateway(asking(hook.url), start=False)
        trusting.environment["SSL_CERT_FILE"] = str(certificate)
        async with await connected(trusting.start()) as station:
            assert (await station.call("Authorize", TOKEN, id="a"))[2] == json.loads(ACCEPTED)
        careful = gateway(asking(hook.url, {"breaker_failures": 1}))
        async with await connected(careful) as station:
            assert (await station.call("Authorize", TOKEN, id="a"))[2] == {"idTagInfo": {"status": "Invalid"}}
        assert requests(careful, "unreachable") == 1


async def test_a_hook_can_be_configured_by_the_environment(gateway):
    with Hook(lambda _: payload(ACCEPTED)) as hook:
        node = gateway(start=False)
        node.environment["OCPP_GATEWAY__ANSWERS__AUTHORIZE__URL"] = hook.url
        async with await connected(node.start()) as station:
            assert (await station.call("Authorize", TOKEN, id="a"))[2] == json.loads(ACCEPTED)


def test_an_unreadable_token_file_is_reported_at_start(gateway, tmp_path):
    node = gateway(asking("http://127.0.0.1:1/", bearer_token_file=str(tmp_path / "none")), start=False)
    node.start(until=None)
    assert node.process.wait(10) != 0
    assert "answers.Authorize.bearer_token_file" in node.log_text()
