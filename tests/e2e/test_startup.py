"""A start that cannot succeed fails with one line that names what and where, and with a non-zero exit code.

Proves it for configurations, ports, data folders, credentials and a second process on the same data; that `check-config` starts
nothing; and that a disk that fills up while the gateway runs delays answers until there is space, and loses no event.
"""

import asyncio
import os
import socket
import subprocess
import time

import pytest
from harness.fleet import Fleet
from harness.gateway import binary, merged, to_toml
from harness.mounts import IS_ROOT, read_only_disk, small_disk
from harness.station import BOOT
from harness.waiting import free_port, wait_for
from harness.wire import Wire

needs_root = pytest.mark.skipif(not IS_ROOT, reason="mounting a file system needs root")


def launch(*arguments, environment=None):
    """Runs the gateway until it exits by itself."""
    return subprocess.run(
        [binary(), *arguments],
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def config(tmp_path):
    """A configuration that works, as a nested dict; only errors are logged."""
    return {
        "node": {"data_dir": str(tmp_path / "data")},
        "listeners": {"main": {"address": f"127.0.0.1:{free_port()}"}},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "log": {"level": "error"},
    }


def run(tmp_path, config):
    file = tmp_path / "gateway.toml"
    file.write_text(config if isinstance(config, str) else to_toml(config))
    return launch("run", "--config", str(file))


def the_line(done, code=1):
    """The only line that the process wrote before it exited with this code."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, f"one line, not {len(lines)}:\n{done.stderr}"
    assert done.returncode == code, lines[0]
    assert done.stdout == ""
    assert lines[0].startswith("ocpp-gateway: ")
    return lines[0]


# -- configuration --------------------------------------------------------------------------------------------------

WRONG_FILES = {
    "a misspelt key": ("[session]\nping_intervall = '30s'\n", ["session.ping_intervall", "ping_interval"]),
    "a misspelt key of a listener": ("[listeners.main]\nadress = '0.0.0.0:1'\n", ["listeners.main.adress", "address"]),
    "a misspelt section": ("[shutdwon]\ndeadline = '1s'\n", ["shutdwon", "shutdown"]),
    "an invalid duration": ("[session]\nidle_timeout = 'soon'\n", ["session.idle_timeout", "soon"]),
    "a number for a duration": ("[session]\nidle_timeout = 30\n", ["session.idle_timeout"]),
    "an invalid size": ("[bus]\nqueue_bytes = 'much'\n", ["bus.queue_bytes", "much"]),
    "an invalid choice": ("[bus]\nkind = 'rabbit'\n", ["bus.kind", "rabbit", "local", "kafka"]),
    "a number below its limit": ("[bus]\nqueue_events = 1\n", ["bus.queue_events", "at least"]),
    "an invalid address": ("[admin]\naddress = 'here'\n", ["admin.address", "here"]),
    "an unknown subprotocol": (
        "[listeners.main]\nsubprotocols = ['ocpp9']\n",
        ["listeners.main.subprotocols", "ocpp9"],
    ),
    "invalid TOML": ("[session\nping_interval = '30s'\n", ["gateway.toml"]),
    "basic without a file": ("[listeners.main]\nauth = 'basic'\n", ["credentials.file"]),
    "an unknown Kafka option": ("[bus]\nkind = 'kafka'\n[bus.kafka.options]\n'sasl.user' = 'x'\n", ["sasl.user"]),
    "a fixed Kafka option": ("[bus]\nkind = 'kafka'\n[bus.kafka.options]\nacks = '1'\n", ["acks", "all"]),
}


@pytest.mark.parametrize("case", WRONG_FILES)
@pytest.mark.parametrize("command", ["run", "check-config"])
def test_a_wrong_file_is_refused(tmp_path, case, command):
    text, expected = WRONG_FILES[case]
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    done = launch(command, "--config", str(file), environment={"OCPP_GATEWAY__NODE__DATA_DIR": str(tmp_path / "data")})
    line = the_line(done, code=2)
    for part in [*expected, str(file)]:
        assert part in line, line
    assert not (tmp_path / "data").exists(), "nothing was started"


def test_a_missing_file_is_named(tmp_path):
    missing = str(tmp_path / "none.toml")
    assert missing in the_line(launch("run", "--config", missing), code=2)


def test_a_misspelt_variable_is_refused():
    line = the_line(launch("check-config", environment={"OCPP_GATEWAY__SESSION__PING_INTERVALL": "3s"}), code=2)
    assert "ping_interval" in line
    assert "ping_intervall" in line.lower()


def test_a_misspelt_override_is_refused():
    line = the_line(launch("check-config", "--set", "session.ping_intervall=3s"), code=2)
    assert "session.ping_intervall" in line


@pytest.mark.parametrize("command", ["run", "check-config"])
def test_a_variable_with_single_underscores_is_refused(command):
    line = the_line(launch(command, environment={"OCPP_GATEWAY_BUS_KIND": "kafka"}), code=2)
    assert "OCPP_GATEWAY_BUS_KIND" in line
    assert "OCPP_GATEWAY__BUS__KIND" in line


def test_variables_that_only_begin_like_ours_are_let_be():
    """Kubernetes makes these for a service of the gateway's name."""
    environment = {"OCPP_GATEWAY_PORT": "tcp://10.0.0.1:9000", "OCPP_GATEWAY_SERVICE_HOST": "10.0.0.1"}
    assert launch("check-config", environment=environment).returncode == 0


def test_a_valid_configuration_is_accepted_and_starts_nothing(tmp_path, config):
    with socket.create_server(("127.0.0.1", int(config["admin"]["address"].split(":")[1]))):
        done = check(tmp_path, config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"admin.address {config['admin']['address']} is in use now" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gateway.toml"]


# What `run` refuses once it opens things -> what `check-config` must say of it.
UNUSABLE = {
    "a missing credentials file": (
        {"listeners": {"main": {"auth": "basic"}}, "credentials": {"file": "DIR/none"}},
        ["DIR/none", "No such file"],
    ),
    "a wrong credentials file": (
        {"listeners": {"main": {"auth": "basic"}}, "credentials": {"file": "DIR/wrong"}},
        ["DIR/wrong", "line 1"],
    ),
    "a wrong rules file": ({"rules": {"file": "DIR/wrong"}}, ["DIR/wrong"]),
    "a missing token": (
        {"answers": {"Authorize": {"url": "http://127.0.0.1:1/", "bearer_token_file": "DIR/none"}}},
        ["answers.Authorize.bearer_token_file", "DIR/none", "No such file"],
    ),
    "a mechanism that the client lacks": (
        {
            "bus": {
                "kind": "kafka",
                "kafka": {"options": {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "NONE-SUCH"}},
            }
        },
        ["bus.kafka", "NONE-SUCH"],
    ),
    "a missing certificate": (
        {"bus": {"kind": "kafka", "kafka": {"options": {"security.protocol": "SSL", "ssl.ca.location": "DIR/none"}}}},
        ["bus.kafka", "ssl.ca.location"],
    ),
    "an address of another machine": ({"admin": {"address": "192.0.2.1:9100"}}, ["admin.address", "192.0.2.1"]),
    "a file in place of the data folder": ({"node": {"data_dir": "DIR/wrong/data"}}, ["node.data_dir", "DIR/wrong"]),
    "a file in place of the spool": (
        {"bus": {"kind": "kafka", "spool": {"dir": "DIR/wrong"}}},
        ["bus.spool.dir", "DIR/wrong"],
    ),
}


def placed(value, folder):
    """The same with DIR replaced by the folder."""
    if isinstance(value, dict):
        return {key: placed(one, folder) for key, one in value.items()}
    return value.replace("DIR", str(folder)) if isinstance(value, str) else value


def check(tmp_path, config):
    file = tmp_path / "gateway.toml"
    file.write_text(to_toml(config))
    return launch("check-config", "--config", str(file))


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_run_refuses_check_config_refuses(tmp_path, config, case):
    change, expected = UNUSABLE[case]
    (tmp_path / "wrong").write_text("CP-1 no colon\n")
    config = merged(config, placed(change, tmp_path))
    line = the_line(check(tmp_path, config), code=2)
    for part in expected:
        assert part.replace("DIR", str(tmp_path)) in line
    done = run(tmp_path, config)
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "data").exists() or case != "a file in place of the data folder"


def test_everything_that_is_wrong_is_told_at_once(tmp_path, config):
    (tmp_path / "wrong").write_text("CP-1 no colon\n")
    changes = [change for case, (change, _) in UNUSABLE.items() if "file in place" not in case]
    for change in changes:
        config = merged(config, placed(change, tmp_path))
    done = check(tmp_path, config)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith("ocpp-gateway: ") for line in lines)
    # The two credentials files, and the two faults of the Kafka client, are one each.
    assert len(lines) == len(changes) - 2, done.stderr


@needs_root
def test_a_read_only_folder_is_found_beforehand(tmp_path, config):
    with read_only_disk(tmp_path / "disk") as folder:
        config["node"]["data_dir"] = str(folder / "data")
        line = the_line(check(tmp_path, config), code=2)
    assert f"node.data_dir {config['node']['data_dir']}: Read-only file system" in line


# -- ports and folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["listeners.main", "admin"])
def test_a_busy_port_is_named(tmp_path, config, key):
    section = config["admin"] if key == "admin" else config["listeners"]["main"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        line = the_line(run(tmp_path, config))
    assert section["address"] in line
    assert f"{key}.address" in line
    assert "in use" in line


def test_a_file_in_place_of_the_data_folder_is_named(tmp_path, config):
    (tmp_path / "file").write_text("")
    config["node"]["data_dir"] = str(tmp_path / "file" / "data")
    line = the_line(run(tmp_path, config))
    assert config["node"]["data_dir"] in line
    assert "Not a directory" in line


@needs_root
def test_a_read_only_data_folder_is_named(tmp_path, config):
    with read_only_disk(tmp_path / "disk") as folder:
        config["node"]["data_dir"] = str(folder / "data")
        line = the_line(run(tmp_path, config))
    assert config["node"]["data_dir"] in line
    assert "Read-only file system" in line


@needs_root
@pytest.mark.parametrize("leave", [0, 4096])
def test_a_full_data_folder_is_named(tmp_path, config, leave):
    with small_disk(tmp_path / "disk", "256k") as disk:
        config["node"]["data_dir"] = str(disk.path / "data")
        disk.fill(leave)
        line = the_line(run(tmp_path, config))
    assert config["node"]["data_dir"] in line
    assert "No space left" in line


def test_a_second_process_on_the_same_data_is_refused(tmp_path, config, gateway):
    first = gateway()
    config["node"]["data_dir"] = str(first.data_dir)
    line = the_line(run(tmp_path, config))
    assert str(first.data_dir) in line
    assert "in use" in line
    assert first.get("/readyz").status_code == 200, "the first one is not disturbed"


# -- credentials ----------------------------------------------------------------------------------------------------


def test_a_missing_credentials_file_is_named(tmp_path, config):
    config["listeners"]["main"]["auth"] = "basic"
    config["credentials"] = {"file": str(tmp_path / "none")}
    line = the_line(run(tmp_path, config))
    assert config["credentials"]["file"] in line
    assert "No such file" in line


def test_a_wrong_line_of_the_credentials_file_is_named(tmp_path, config):
    (tmp_path / "credentials").write_text("# stations\nCP-1 no colon\n")
    config["listeners"]["main"]["auth"] = "basic"
    config["credentials"] = {"file": str(tmp_path / "credentials")}
    line = the_line(run(tmp_path, config))
    assert config["credentials"]["file"] in line
    assert "line 2" in line or ":2" in line


# -- a disk that fills up ---------------------------------------------------------------------------------------------


@needs_root
async def test_a_full_disk_delays_answers_and_loses_nothing(gateway, tmp_path):
    with small_disk(tmp_path / "disk", "32m") as disk:
        node = gateway({"node": {"data_dir": str(disk.path / "data")}, "log": {"level": "info"}})
        fleet = Fleet(20)
        await fleet.connect(node)
        fleet.begin()
        await fleet.answers_reach(500)
        disk.fill()
        reason = await asyncio.to_thread(
            wait_for, lambda: (page := node.get("/readyz")).status_code == 503 and page.text, "it to be unready"
        )
        assert str(disk.path / "data") in reason, reason
        assert "No space left" in reason, reason
        assert node.get("/livez").status_code == 200
        assert node.get("/health").json()["status"] != "ok"

        # Every station waits: no answer, no CALLERROR, no disconnection.
        answers = fleet.ledger.answers
        began = time.monotonic()
        while time.monotonic() - began < 1:
            # Nothing must be answered within a second.
            await asyncio.sleep(0.05)
            assert fleet.ledger.answers == answers, "answered without being stored"
        assert not any(member.wire.ended.done() for member in fleet.members)
        late = await Wire.connect(node, "CP-LATE")
        late.send('[2,"late","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]')
        await late.silence(0.5)

        disk.free()
        await fleet.answers_reach(answers + 500)
        assert (await late.receive())[:2] == [3, "late"]
        wait_for(lambda: node.get("/readyz").status_code == 200, "it to be ready again")
        await late.leave()
        node.kill9()
        await fleet.ended()
        await asyncio.to_thread(node.restart)
        assert fleet.faults == []
        events = [event for event in node.events(type="ocpp.message.received") if event.station != "CP-LATE"]
        figures = fleet.ledger.compare(events)
        print(f"\n{figures}")
        assert figures.faults == {}
        node.sigterm()


@needs_root
async def test_a_full_disk_does_not_prevent_shutdown(gateway, tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        node = gateway({"node": {"data_dir": str(disk.path / "data")}, "shutdown": {"deadline": "2s"}})
        station = await Wire.connect(node, "CP-1")
        await station.call("boot", "BootNotification", BOOT["1.6"])
        disk.fill()
        # Enough to need another page on the disk.
        station.send(f'[2,"big","DataTransfer",{{"vendorId":"V","data":"{"x" * 10_000}"}}]')
        wait_for(lambda: node.get("/readyz").status_code == 503, "it to be unready")
        began = time.monotonic()
        assert await asyncio.to_thread(node.sigterm) == 0
        assert time.monotonic() - began < 3.5
        assert not station.texts, "what was not stored was not answered"
