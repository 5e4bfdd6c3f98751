"""A bad link in every phase, ciphers, ~/.ssh/config, and going on after the link was lost; with real SSH servers."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_proxy import FaultProxy

from liteship import remote
from liteship.errors import HostKeyError, LinkError, LostLinkError, TargetError
from liteship.link import login
from liteship.link.ciphers import WITH_AES, WITHOUT_AES
from liteship.remote import Connection, SilenceError
from liteship.retry import Patience, keep_trying
from liteship.targets import Target

MIB = 1 << 20
NO_AES = ["fp", "asimd", "evtstrm", "crc32", "cpuid"]  # of a Raspberry Pi 4
PROMPT_SECONDS = 10.0
"""Far more than the deadlines of these tests, far less than those of an operating system."""

COUNT = """
import hashlib, json, sys
digest, count = hashlib.sha256(), 0
while piece := sys.stdin.buffer.read(1 << 16):
    digest.update(piece)
    count += len(piece)
print('\\x1eliteship ' + json.dumps({'event': 'done', 'count': count, 'sha256': digest.hexdigest()}))
"""


def make_key(path: Path) -> Path:
    """A new ed25519 key pair: `path` and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def command(code: str) -> str:
    return f"{shlex.quote(sys.executable)} -I -c {shlex.quote(code)}"


def only_line(error: LinkError) -> str:
    """The error as the command line prints it."""
    assert "\n" not in str(error).strip()
    assert error.exit_code == 5
    return str(error)


# --- phases ---

PHASES = ["dial", "key exchange", "login", "exec", "stream", "rekey"]
Fault = Callable[[FaultProxy], None]


def go_through(phase: str, proxy: FaultProxy, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work over a proxy whose fault comes at the beginning of a phase."""
    if phase == "dial":
        fault(proxy)
    if phase in ("key exchange", "login"):
        name = {"key exchange": "handshake", "login": "log_in"}[phase]
        step = getattr(remote, name)
        monkeypatch.setattr(remote, name, lambda *arguments: (fault(proxy), step(*arguments))[1])
    if phase == "rekey":
        monkeypatch.setattr(remote, "_REKEY_SECONDS", 1.0)
    with Connection.open(proxy.target, connect_seconds=1.0) as connection:
        if phase == "exec":
            fault(proxy)
        if phase == "rekey":
            fault(proxy)
            connection.prefer_cipher_for(NO_AES)
        source = (bytes(MIB) for _ in range(100))
        on_event = (lambda event: fault(proxy)) if phase == "stream" else None
        begin = 'print(\'\\x1eliteship {"event": "begin"}\', flush=True)\n'
        connection.call(command(begin + "import time; time.sleep(60)"), source, on_event=on_event, idle_seconds=1.0)


@pytest.mark.parametrize("phase", PHASES)
def test_link_that_freezes_is_given_up_in_every_phase(
    phase: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(target).running() as proxy:
        begin = time.monotonic()
        with pytest.raises(LostLinkError) as caught:
            go_through(phase, proxy, FaultProxy.freeze, monkeypatch)
        assert time.monotonic() - begin < PROMPT_SECONDS
    line = only_line(caught.value)
    assert "no answer in time" in line or "(time-out)" in line, line


@pytest.mark.parametrize("phase", PHASES[1:])
def test_link_that_is_cut_is_lost_in_every_phase(phase: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(target).running() as proxy:
        begin = time.monotonic()
        with pytest.raises(LostLinkError) as caught:
            go_through(phase, proxy, FaultProxy.end, monkeypatch)
        assert time.monotonic() - begin < PROMPT_SECONDS
    assert not isinstance(caught.value, SilenceError)
    only_line(caught.value)


def test_close_of_a_frozen_link_does_not_wait(target: Target) -> None:
    with FaultProxy(target).running() as proxy:
        connection = Connection.open(proxy.target)
        proxy.freeze()
        begin = time.monotonic()
        connection.close()
        assert time.monotonic() - begin < PROMPT_SECONDS


def test_slow_link_is_no_lost_link(target: Target) -> None:
    with (
        FaultProxy(target, delay_seconds=0.05).running() as proxy,
        Connection.open(proxy.target, connect_seconds=10.0) as connection,
    ):
        assert connection.call(command(COUNT), [bytes(100_000)], idle_seconds=5.0)["count"] == 100_000


def test_server_process_that_is_killed_is_a_lost_link(sshd: Target) -> None:
    with Connection.open(sshd) as connection, pytest.raises(LostLinkError, match="link lost"):
        connection.call("kill -9 $PPID; sleep 20")


def test_command_that_is_killed_is_named_and_is_no_lost_link(sshd: Target) -> None:
    with Connection.open(sshd) as connection:
        with pytest.raises(LinkError, match="Received: the command was killed there") as caught:
            connection.call("kill -9 $$")
        assert not isinstance(caught.value, LostLinkError)
        assert connection.call(command(COUNT))["count"] == 0, "the link is still good"


def test_server_that_runs_no_command_is_named(sshd_with: Callable[..., Target]) -> None:
    with Connection.open(sshd_with("MaxSessions 0")) as connection, pytest.raises(LinkError) as caught:
        connection.call("true")
    assert "board: a server that runs commands is required" in only_line(caught.value)
    assert not isinstance(caught.value, LostLinkError)


def test_server_that_has_enough_of_wrong_keys_is_quoted_and_not_tried_again(
    sshd_with: Callable[..., Target], home: Path
) -> None:
    board = sshd_with("MaxAuthTries 1")
    make_key(home / ".ssh" / "id_ed25519")
    with pytest.raises(LinkError, match=r"refused .*Too many authentication failures") as caught:
        Connection.open(board.model_copy(update={"identity_file": None}))
    assert not isinstance(caught.value, LostLinkError)


def test_wrong_user_is_refused_and_not_tried_again(sshd: Target) -> None:
    with pytest.raises(
        LinkError, match=r"A login as nobody-here@127\.0\.0\.1 is required\. Received: refused"
    ) as caught:
        Connection.open(sshd.model_copy(update={"user": "nobody-here"}))
    assert not isinstance(caught.value, LostLinkError)


def test_agent_that_does_not_answer_is_named_and_passed_over(
    sshd: Target, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_AGENT_SECONDS", 0.3)
    path = home / "agent"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        with pytest.raises(LinkError, match=r"tried ssh agent: no answer in time\)"):
            Connection.open(sshd.model_copy(update={"identity_file": None}))


# --- ciphers ---


def ciphers(connection: Connection) -> set[str]:
    """In use, in both directions."""
    return {connection._transport.local_cipher, connection._transport.remote_cipher}


def test_cipher_follows_the_cpu_of_the_board_and_nothing_is_lost(target: Target) -> None:
    pieces = [os.urandom(MIB) for _ in range(20)]
    with Connection.open(target) as connection:
        assert ciphers(connection) == {WITH_AES}
        assert connection.prefer_cipher_for([*NO_AES, "aes"]) == WITH_AES
        assert connection.prefer_cipher_for([]) == WITH_AES
        assert connection.prefer_cipher_for(NO_AES) == WITHOUT_AES
        assert ciphers(connection) == {WITHOUT_AES}
        received = connection.call(command(COUNT), pieces)
        assert ciphers(connection) == {WITHOUT_AES}
    assert received == {"count": 20 * MIB, "sha256": hashlib.sha256(b"".join(pieces)).hexdigest()}


@pytest.mark.parametrize("who", ["server", "client"])
def test_long_stream_survives_the_key_exchanges_that_either_side_asks_for(
    who: str, sshd_with: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 64 KiB or 1 MiB instead of 512 MiB."""
    pieces = [os.urandom(MIB) for _ in range(8)]
    with Connection.open(sshd_with(f"RekeyLimit {'64K' if who == 'server' else 'default'}")) as connection:
        if who == "client":
            monkeypatch.setattr(connection._transport.packetizer, "REKEY_BYTES", MIB)
        before = connection._transport.H
        received = connection.call(command(COUNT), pieces)
        assert before != connection._transport.H, "keys were exchanged"
    assert received == {"count": 8 * MIB, "sha256": hashlib.sha256(b"".join(pieces)).hexdigest()}


@pytest.mark.parametrize("offered", ["aes256-ctr", WITH_AES])
def test_server_without_the_wished_cipher_keeps_its_own(offered: str, sshd_with: Callable[..., Target]) -> None:
    with Connection.open(sshd_with(f"Ciphers {offered}")) as connection:
        assert connection.prefer_cipher_for(NO_AES) == offered
        assert ciphers(connection) == {offered}
        assert connection.call(command(COUNT), [bytes(MIB)])["count"] == MIB


def test_server_without_any_common_cipher_is_named_and_not_tried_again(sshd_with: Callable[..., Target]) -> None:
    with pytest.raises(LinkError, match=r"An SSH server at .* is required") as caught:
        Connection.open(sshd_with("Ciphers chacha20-poly1305@openssh.com"))
    assert not isinstance(caught.value, LostLinkError)


# --- ~/.ssh/config ---


@pytest.fixture
def configured(sshd: Target, home: Path) -> Target:
    """The sshd under a name that only ~/.ssh/config knows."""
    (home / ".ssh" / "config").write_text(
        f"Host desk\nHostName {sshd.host}\nPort {sshd.port}\nUser {sshd.user}\nIdentityFile {sshd.identity_file}\n"
        "IdentitiesOnly yes\n"
    )
    return Target(name="pi", host="desk", host_key_sha256=sshd.host_key_sha256, python=sys.executable)


def test_target_is_reached_by_the_users_own_configuration(configured: Target, sshd: Target) -> None:
    with Connection.open(configured) as connection:
        assert connection.endpoint.address == f"{sshd.user}@127.0.0.1:{sshd.port}"
        assert connection.call(command(COUNT))["count"] == 0
    assert remote.scan_host_key(configured) == sshd.host_key_sha256


def test_known_host_is_found_under_the_alias_of_the_configuration(configured: Target, sshd: Target, home: Path) -> None:
    unpinned = configured.model_copy(update={"host_key_sha256": None})
    with pytest.raises(HostKeyError, match="unknown key"):
        Connection.open(unpinned)
    config = home / ".ssh" / "config"
    config.write_text(config.read_text() + "HostKeyAlias my-board\n")
    key = (Path(sshd.identity_file).parent / "host_key.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"my-board {key}")
    with Connection.open(unpinned) as connection:
        assert connection.call(command(COUNT))["count"] == 0


def test_identities_only_tries_no_other_key(configured: Target, home: Path) -> None:
    make_key(home / ".ssh" / "id_ed25519")
    stranger = make_key(home / "stranger")
    config = home / ".ssh" / "config"
    text = config.read_text()
    config.write_text(text.replace(text.split("IdentityFile ")[1].split("\n")[0], str(stranger)))
    with pytest.raises(LinkError) as caught:
        Connection.open(configured)
    assert f"(tried {stranger})" in caught.value.message


def test_proxy_command_of_the_configuration_is_the_link(configured: Target, sshd: Target, home: Path) -> None:
    relay = (
        "import socket, sys, threading, shutil\n"
        "link = socket.create_connection((sys.argv[1], int(sys.argv[2]))).makefile('rwb', 0)\n"
        "out = open(1, 'wb', 0)\n"
        "threading.Thread(target=shutil.copyfileobj, args=(link, out), daemon=True).start()\n"
        "shutil.copyfileobj(open(0, 'rb', 0), link)\n"
    )
    (home / "relay.py").write_text(relay)
    config = home / ".ssh" / "config"
    config.write_text(config.read_text() + f"ProxyCommand {sys.executable} {home}/relay.py %h %p\n")
    with Connection.open(configured) as connection:
        assert connection.call(command(COUNT), [bytes(MIB)])["count"] == MIB


def test_complaint_of_the_program_in_between_is_quoted(configured: Target, home: Path) -> None:
    config = home / ".ssh" / "config"
    text = config.read_text()
    config.write_text(text + "ProxyCommand sh -c 'echo gate is closed >&2'\n")
    with pytest.raises(LostLinkError, match=r"Received: gate is closed"):
        Connection.open(configured)
    config.write_text(text + "ProxyCommand no-such-program-here\n")
    with pytest.raises(LinkError, match=r"no-such-program-here: not found") as caught:
        Connection.open(configured)
    assert not isinstance(caught.value, LostLinkError)


def test_broken_configuration_is_a_usage_error(configured: Target, home: Path) -> None:
    (home / ".ssh" / "config").write_text("Port ssh\n")
    for action in (Connection.open, remote.scan_host_key):
        with pytest.raises(TargetError, match=r"\.ssh/config: Port from 1 to 65535 is required"):
            action(configured)


# --- going on ---


def test_transfer_goes_on_over_a_link_that_is_cut_again_and_again(target: Target, tmp_path: Path) -> None:
    """The far side appends to a file and says first how long it is, as a deploy does."""
    data, received = os.urandom(8 * MIB), tmp_path / "received"
    code = f"""
import json, sys
def say(**event): print('\\x1eliteship ' + json.dumps(event), flush=True)
with open({str(received)!r}, 'ab') as file:
    if sys.argv[1:]:
        say(event='done', length=file.tell())
    else:
        while piece := sys.stdin.buffer.read1(65536):
            file.write(piece)
            file.flush()
        say(event='done', length=file.tell())
"""
    said: list[str] = []
    slept: list[float] = []

    def send(connection: Connection) -> int:
        begin = connection.call(f"{command(code)} ask")["length"]
        rest = (data[i : i + MIB] for i in range(begin, len(data), MIB))
        return connection.call(command(code), rest)["length"]

    with FaultProxy(target, cut_after=(3 * MIB, 0, 3 * MIB)).running() as proxy:
        length = keep_trying(
            lambda: Connection.open(proxy.target), send, "board", said.append, Patience(sleep=slept.append)
        )
        assert proxy.connections == 4
    assert (length, received.read_bytes() == data) == (8 * MIB, True)
    assert len(said) == len(slept) == 3
    assert all(line.startswith("board: ") and "; trying again in " in line for line in said)


def test_password_is_written_to_no_log(
    sshd_with: Callable[..., Target], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    board = sshd_with("PasswordAuthentication yes")
    caplog.set_level(1, "paramiko")
    with pytest.raises(LinkError) as caught:
        Connection.open(board.model_copy(update={"identity_file": None}), ask_password=lambda question: "s3cr3t-word")
    shown = caplog.text + "".join(capfd.readouterr()) + repr(caught.value) + repr(caught.value.__cause__)
    assert "Authentication" in caplog.text
    assert "s3cr3t" not in shown


# --- several targets ---


def test_several_real_targets_are_checked_by_one_command(sshd: Target, tmp_path: Path) -> None:
    keys = ("host", "port", "user", "identity_file", "host_key_sha256", "python")
    lines = [f"{key} = {json.dumps(getattr(sshd, key))}" for key in keys]
    text = "\n".join(["[targets.pi]", *lines, 'folder = "~/nothing-here"', 'groups = ["desk"]', ""])
    (tmp_path / "targets.toml").write_text(text)
    liteship = Path(sys.executable).with_name("liteship")
    ended = subprocess.run(
        [liteship, "doctor", "--target", "desk,loopback", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(ended.stdout)["targets"]
    checks = {name: {check["what"]: check for check in one["checks"]} for name, one in found.items()}
    assert list(checks) == ["pi", "loopback"]
    assert checks["pi"]["connection"]["found"] == f"{sshd.user}@127.0.0.1:{sshd.port}"
    assert all(found["board"]["passed"] for found in checks.values()), ended.stderr
