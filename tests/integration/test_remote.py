import contextlib
import hashlib
import io
import json
import os
import pwd
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from liteship.errors import HostKeyError, LinkError, LostLinkError
from liteship.loopback import serve
from liteship.remote import Connection, EventParser, RemoteError, SilenceError, scan_host_key
from liteship.targets import Target
from liteship_agent.store.events import EVENT_MARK

MIB = 1 << 20
WRONG = "SHA256:" + "A" * 43
SMOKE = """print('\\x1eliteship {"event": "done", "ms": 2}')"""


def event_line(**event: object) -> bytes:
    return EVENT_MARK + json.dumps(event).encode() + b"\n"


def program(code: str) -> str:
    """A command that runs Python code, in which `say(event)` writes an event line."""
    say = "import sys, json\ndef say(**e): print('\\x1eliteship ' + json.dumps(e), flush=True)\n"
    return f"{shlex.quote(sys.executable)} -I -c {shlex.quote(say + code)}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def release_of(artefact: bytes) -> tuple[str, list[bytes]]:
    """release.json and the blobs of a small deploy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), SMOKE)
    blobs = [buffer.getvalue(), artefact]
    names = ["liteship_agent.zip", "artefacts/none-none.tflite"]
    release = {"runtimes": [], "files": [{"path": n, "sha256": sha256(b)} for n, b in zip(names, blobs, strict=True)]}
    return json.dumps(release), blobs


def deploy_stream(artefact: bytes, resume_at: int | None = None) -> list[bytes]:
    """What a deploy sends: both blobs, or only the artefact's rest when an earlier one got as far as that."""
    text, blobs = release_of(artefact)
    to_send = [(blob, 0) for blob in blobs] if resume_at is None else [(blobs[0], len(blobs[0])), (artefact, resume_at)]
    items = [{"sha256": sha256(blob), "size": len(blob), "offset": offset} for blob, offset in to_send]
    return [header(items, text), *(blob[offset:] for blob, offset in to_send)]


def header(blobs: list[dict], release_bytes: str) -> bytes:
    """What goes ahead of the blobs."""
    fields = {"blobs": blobs, "release_bytes": release_bytes, "time": "2026-11-22T12:00:00Z"}
    packed = zlib.compress(json.dumps({**fields, "unpacked_bytes": 0, "keep": 3}).encode())
    return b"%d\n" % len(packed) + packed


# --- event lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_parser_finds_events_between_noise_however_they_are_cut(size):
    stream = b"Welcome to Debian\nno line feed " + event_line(event="a", text="\u2713") + b"\n\xff\xfe noise\n"
    stream += EVENT_MARK + b"{broken\n" + EVENT_MARK + b"[1]\n" + event_line(event="b") + b"trailing"
    parser = EventParser()
    events = [event for i in range(0, len(stream), size) for event in parser.feed(stream[i : i + size])]
    assert events == [{"event": "a", "text": "\u2713"}, {"event": "b"}]


def test_parser_copies_a_long_line_once():
    parser, line = EventParser(), event_line(event="done", scores="x" * 4 * MIB)
    pieces = [line[i : i + 4096] for i in range(0, len(line), 4096)]
    waiting = [list(parser.feed(piece)) for piece in pieces[:-1]]
    assert not any(waiting)
    assert sum(len(piece) for piece in parser._pieces) == sum(len(piece) for piece in pieces[:-1])
    (event,) = parser.feed(pieces[-1])
    assert len(event["scores"]) == 4 * MIB


# --- one connection ------------------------------------------------------------------------------------------------


def test_probe_is_one_round_trip_and_expands_nothing_on_the_host(target):
    with Connection.open(target) as connection:
        found = connection.probe()
        assert connection.round_trips == 1
        assert connection.bytes_sent > 1000, "the source of the store is counted"
    assert found["folder"] == target.folder
    assert found["python_version"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert not Path(target.folder).exists()


def test_deploy_through_a_real_server(target):
    artefact = os.urandom(3 * MIB)
    events: list[dict] = []
    with Connection.open(target) as connection:
        done = connection.store("deploy", deploy_stream(artefact), on_event=events.append)
        again = connection.probe()
    assert (done["activated"], done["smoke"]) == (True, {"ms": 2})
    assert again["current"] == done["release"]
    assert (Path(target.folder) / "current" / "artefacts" / "none-none.tflite").read_bytes() == artefact
    received = [event["received"] for event in events if event.get("stage") == "receive"]
    assert received == sorted(received)
    assert received[-1] >= 2 * MIB


def test_deploy_resumes_after_an_interrupt(target):
    artefact = os.urandom(4 * MIB)
    interrupted = threading.Event()

    def stalled():
        yield b"".join(deploy_stream(artefact))[: 3 * MIB]
        interrupted.wait()

    def interrupt(event: dict) -> None:
        if event["event"] == "progress":
            interrupted.set()
            raise KeyboardInterrupt

    with Connection.open(target) as connection, pytest.raises(KeyboardInterrupt):
        connection.store("deploy", stalled(), on_event=interrupt)
    subprocess.run(["flock", Path(target.folder) / "deploy.lock", "true"], check=True)  # the far side has ended
    with Connection.open(target) as connection:
        offset = connection.probe()["partial"][sha256(artefact)]
        assert MIB <= offset <= 3 * MIB
        before = connection.bytes_sent
        assert connection.store("deploy", deploy_stream(artefact, offset))["activated"] is True
        assert connection.bytes_sent - before < 3.5 * MIB


def test_wrong_sha256_is_an_error_of_its_kind(target):
    text, blobs = release_of(b"right")
    items = [{"sha256": sha256(blobs[1]), "size": 5, "offset": 0}]
    with Connection.open(target) as connection, pytest.raises(RemoteError) as caught:
        connection.store("deploy", [header(items, text) + b"wrong"])
    assert caught.value.kind == "hash"
    assert sha256(b"wrong") in str(caught.value)
    assert caught.value.exit_code == 5


def test_no_space_is_told_before_the_bytes_are_sent(target):
    blobs = [{"sha256": "0" * 64, "size": 1 << 60, "offset": 0}]

    def endless():
        yield header(blobs, '{"files": [], "runtimes": []}')
        while True:
            yield bytes(MIB)

    with Connection.open(target) as connection:
        with pytest.raises(RemoteError, match="MiB of free space") as caught:
            connection.store("deploy", endless())
        assert caught.value.kind == "space"
        assert connection.bytes_sent < 64 * MIB
        assert connection.probe()["partial"] == {}, "the connection is still good"


def test_both_directions_flow_at_once(target):
    code = "n = 0\nwhile True:\n b = sys.stdin.buffer.read1(65536)\n if not b: break\n n += len(b)\n"
    code += " sys.stdout.buffer.write(b'#' * len(b) + b'\\n'); sys.stderr.buffer.write(b'!' * len(b))\n"
    with Connection.open(target) as connection:
        assert connection.call(program(code + "say(event='done', n=n)"), (bytes(MIB) for _ in range(8)))["n"] == 8 * MIB


def test_long_report_arrives_whole(target):
    with Connection.open(target) as connection:
        assert len(connection.call(program("say(event='done', x='y' * 6000000)"))["x"]) == 6000000


def test_events_come_while_the_command_runs(target):
    """The far side ends only after the host has seen its first event."""
    seen = threading.Event()

    def answer():
        seen.wait()
        yield b"go\n"

    with Connection.open(target) as connection:
        code = "say(event='progress', n=1)\nsay(event='done', line=sys.stdin.readline())"
        done = connection.call(program(code), answer(), on_event=lambda event: seen.set())
    assert done == {"line": "go\n"}


def test_background_process_that_holds_stdout_does_not_hold_the_answer(target):
    with Connection.open(target) as connection:
        command = program("say(event='done')") + "; setsid sleep 20 & echo $!"
        assert connection.call(command, idle_seconds=1.5) == {}


def test_error_of_the_source_is_raised_as_it_is(target):
    def source():
        yield b"x"
        raise FileNotFoundError("model.tflite")

    with Connection.open(target) as connection, pytest.raises(FileNotFoundError, match=r"model\.tflite"):
        connection.call("cat >/dev/null", source())


def test_missing_python_is_named_with_the_way_to_get_it(target):
    bare = target.model_copy(update={"python": "no-such-python"})
    with Connection.open(bare) as connection, pytest.raises(LinkError) as caught:
        connection.store("probe", (bytes(MIB) for _ in range(8)))
    assert caught.value.message == f"no-such-python is required on {target.name}. Received: command not found."
    assert "sudo apt install python3" in caught.value.hint
    assert caught.value.exit_code == 5


def test_python_under_the_home_folder_there_is_found(sshd):
    """The sshd's shell starts in the real home folder of its user, which a leading ~ stands for."""
    relative = os.path.relpath(sys.executable, pwd.getpwuid(os.getuid()).pw_dir)
    with Connection.open(sshd.model_copy(update={"python": f"~/{relative}"})) as connection:
        assert connection.probe()["releases"] == []


def test_python_that_is_no_program_is_named(target, tmp_path):
    (tmp_path / "python3").write_text("")
    broken = target.model_copy(update={"python": str(tmp_path / "python3")})
    with Connection.open(broken) as connection, pytest.raises(LinkError, match="Received: permission denied"):
        connection.probe()


def test_command_without_answer_shows_the_end_of_stderr(target):
    with Connection.open(target) as connection, pytest.raises(LinkError) as caught:
        connection.call("echo first >&2; echo 'Illegal instruction' >&2; exit 132")
    assert "exit status 132 Illegal instruction" in caught.value.message


def test_silent_far_side_is_a_time_out(target):
    with Connection.open(target) as connection, pytest.raises(SilenceError, match=r"within 1 s") as caught:
        connection.call("exec sleep 20", idle_seconds=1.0)
    assert caught.value.exit_code == 5


def test_far_side_that_does_not_read_is_a_time_out(target):
    with Connection.open(target) as connection, pytest.raises(SilenceError):
        connection.call("exec sleep 20", (bytes(MIB) for _ in range(100)), idle_seconds=1.0)


def test_link_that_takes_no_more_bytes_is_a_time_out(target):
    """As when a cable is pulled during an upload: TCP neither delivers nor complains."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
        pumps = threading.Thread(target=freeze_after, args=(2 * MIB, server, target, stack), daemon=True)
        pumps.start()
        detour = target.model_copy(update={"port": server.getsockname()[1]})
        with Connection.open(detour) as connection, pytest.raises(SilenceError):
            connection.call("cat >/dev/null", (bytes(MIB) for _ in range(100)), idle_seconds=1.0)
        pumps.join()


def freeze_after(size: int, server: socket.socket, target: Target, stack: contextlib.ExitStack) -> None:
    """Pass one connection on to a target, but only the first `size` bytes of what goes there."""
    near = stack.enter_context(server.accept()[0])
    far = stack.enter_context(socket.create_connection((target.host, target.port)))

    def answer() -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)

    threading.Thread(target=answer, daemon=True).start()
    while size > 0 and (data := near.recv(65536)):
        far.sendall(data)
        size -= len(data)


def test_lost_link_is_named(target):
    with Connection.open(target) as connection, pytest.raises(LinkError, match="link lost"):
        connection.call(
            program("say(event='progress')\nsys.stdin.read()"),
            waiting(),
            on_event=lambda event: connection._transport.sock.shutdown(socket.SHUT_RDWR),
        )


def waiting():
    """A source that has nothing to send."""
    yield b""
    threading.Event().wait(1)


def test_call_on_a_lost_connection_is_a_link_error(target):
    with Connection.open(target) as connection:
        connection.close()
        with pytest.raises(LinkError, match="link lost"):
            connection.call("true")


def test_shell_that_prints_a_banner_is_understood(sshd_with):
    banner = "echo Welcome; echo warning >&2; printf 'no line feed'"
    noisy = sshd_with(f'ForceCommand {banner}; eval "$SSH_ORIGINAL_COMMAND"')
    with Connection.open(noisy) as connection:
        assert connection.probe()["word_bits"] in (32, 64)


# --- host keys -----------------------------------------------------------------------------------------------------


def test_scan_tells_the_fingerprint(target):
    assert scan_host_key(target) == target.host_key_sha256


def test_wrong_pinned_host_key_is_refused(target, home):
    add_known_host(target, home)  # is no help
    with pytest.raises(HostKeyError) as caught:
        Connection.open(target.model_copy(update={"host_key_sha256": WRONG}))
    assert WRONG in caught.value.message
    assert target.host_key_sha256 in caught.value.message
    assert f"liteship targets trust {target.name}" in caught.value.hint
    assert caught.value.exit_code == 5


def test_unknown_host_key_is_shown_and_never_added(target, home):
    with pytest.raises(HostKeyError) as caught:
        Connection.open(unpinned(target))
    assert f"unknown key {target.host_key_sha256}" in caught.value.message
    assert f"liteship targets trust {target.name}" in caught.value.hint
    assert list((home / ".ssh").iterdir()) == []


@pytest.mark.parametrize("hashed", [False, True])
def test_host_key_of_known_hosts_is_trusted(target, home, hashed):
    path = add_known_host(target, home)
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
        assert target.host not in path.read_text()
    path.write_text("broken line\n" + path.read_text())
    with Connection.open(unpinned(target)) as connection:
        assert connection.probe()["releases"] == []


def test_changed_host_key_of_known_hosts_is_refused(target, home, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    add_known_host(target, home, key=(tmp_path / "other.pub").read_text())
    with pytest.raises(HostKeyError, match=r"of ~/\.ssh/known_hosts of"):
        Connection.open(unpinned(target))


def test_server_is_asked_for_the_key_type_that_is_known(sshd_with, home, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", tmp_path / "rsa"], check=True)
    both = sshd_with(f"HostKey {tmp_path / 'rsa'}")
    add_known_host(both, home, key=(tmp_path / "rsa.pub").read_text())
    with Connection.open(unpinned(both)) as connection:
        assert connection.probe()["releases"] == []


def unpinned(target: Target) -> Target:
    return target.model_copy(update={"host_key_sha256": None})


def add_known_host(target: Target, home: Path, key: str = "") -> Path:
    """Write known_hosts as ssh does, with the target's own key or another one."""
    if not key:
        command = ["ssh-keyscan", "-t", "ed25519", "-p", str(target.port), target.host]
        scanned = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        key = scanned.split(" ", 1)[1]
    path = home / ".ssh" / "known_hosts"
    path.write_text(f"# boards\n[{target.host}]:{target.port} {key}\n")
    return path


# --- sensors ---


def test_sensors_are_read_before_any_release_exists(target):
    with Connection.open(target) as connection:
        answer = connection.sensors()
        assert connection.round_trips == 1
    assert answer["sample"]["memory_available_bytes"] > 0
    assert set(answer) == {"sample", "sources", "can_see_throttling"}
    assert not Path(target.folder).exists()


# --- login and reach -----------------------------------------------------------------------------------------------


def test_refused_login_names_user_host_and_what_was_tried(sshd, home, tmp_path):
    target, stranger = sshd, tmp_path / "stranger"
    for path in (stranger, home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "secret", "-f", home / ".ssh" / "id_ecdsa"], check=True)
    with pytest.raises(LinkError) as caught:
        Connection.open(target.model_copy(update={"identity_file": str(stranger)}))
    message = caught.value.message
    assert f"{target.user}@{target.host}" in message
    assert str(stranger) in message
    assert "id_ed25519" in message
    assert "id_ecdsa: not a key, or one with a passphrase" in message
    assert caught.value.exit_code == 5


def test_missing_key_file_is_named(target, tmp_path):
    with pytest.raises(LinkError, match="gone: No such file or directory"):
        Connection.open(target.model_copy(update={"identity_file": str(tmp_path / "gone")}))


def test_usual_key_file_is_tried_without_identity_file(target, home):
    path = home / ".ssh" / "id_ed25519"
    path.write_bytes(Path(target.identity_file).read_bytes())
    with Connection.open(target.model_copy(update={"identity_file": None})) as connection:
        assert connection.probe()["releases"] == []


def test_key_of_the_agent_is_tried(target, tmp_path, monkeypatch):
    agent_socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent_socket], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent_socket))
            subprocess.run(["ssh-add", "-q", target.identity_file], check=True)
            with Connection.open(target.model_copy(update={"identity_file": None})) as connection:
                assert connection.probe()["releases"] == []
        finally:
            agent.terminate()


def test_password_is_asked_only_when_the_server_takes_one(sshd_with, sshd):
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "wrong"

    for server, questions in ((sshd, 0), (sshd_with("PasswordAuthentication yes"), 1)):
        keyless = server.model_copy(update={"identity_file": None})
        with pytest.raises(LinkError, match="refused"):
            Connection.open(keyless, ask_password=ask)
        assert asked == [f"Password of {server.user}@{server.host}"] * questions


def test_closed_port_is_a_link_error(sshd):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound, but nobody listens
        nobody = sshd.model_copy(update={"port": probe.getsockname()[1]})
        with pytest.raises(LinkError, match="Received: Connection refused") as caught:
            Connection.open(nobody)
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_unknown_host_is_a_link_error_that_another_attempt_would_not_cure(sshd):
    with pytest.raises(LinkError, match=r"no-such-board\.invalid:22 is required") as caught:
        scan_host_key(Target(name="board", host="no-such-board.invalid"))
    assert not isinstance(caught.value, LostLinkError)


def test_server_that_stops_after_its_banner_is_a_time_out(sshd):
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:

        def greet() -> None:
            stack.enter_context(server.accept()[0]).sendall(b"SSH-2.0-Sleepy\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        with pytest.raises(LinkError, match="no answer in time"):
            Connection.open(sshd.model_copy(update={"port": server.getsockname()[1]}), connect_seconds=0.5)
        greeter.join()


def test_server_that_says_nothing_is_a_time_out(sshd):
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(LinkError, match="is required"):
        Connection.open(sshd.model_copy(update={"port": mute.getsockname()[1]}), connect_seconds=0.5)


def test_proxy_jump_goes_through_the_ssh_program_and_ends_it(sshd, home, tmp_path, monkeypatch):
    config, script = tmp_path / "ssh_config", tmp_path / "bin" / "ssh"
    add_known_host(sshd, home)
    config.write_text(
        f"Host gate\nHostName {sshd.host}\nPort {sshd.port}\nUser {sshd.user}\nIdentityFile {sshd.identity_file}\n"
        f"UserKnownHostsFile {home}/.ssh/known_hosts\n"
    )
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho $$ >{tmp_path}/pid\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    with Connection.open(sshd.model_copy(update={"proxy_jump": "gate"})) as connection:
        assert connection.probe()["releases"] == []
        ended = os.pidfd_open(int((tmp_path / "pid").read_text()))
        assert select.select([ended], [], [], 0)[0] == []
    assert select.select([ended], [], [], 20)[0] == [ended]
    os.close(ended)


# --- the loopback server -------------------------------------------------------------------------------------------


def test_loopback_keys_are_private_and_thrown_away(tmp_path):
    with serve(tmp_path) as target:
        assert stat.S_IMODE(os.stat(target.identity_file).st_mode) == 0o600
        assert target.host == "127.0.0.1"
    assert not Path(target.identity_file).exists()
    with pytest.raises(LostLinkError):
        scan_host_key(target)


def test_loopback_runs_commands_in_a_session_of_their_own(loopback):
    with Connection.open(loopback) as connection:
        done = connection.call(program("import os\nsay(event='done', sid=os.getsid(0))"))
    assert done["sid"] != os.getsid(0)


def test_loopback_ends_a_command_when_its_channel_closes(loopback, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"import signal\npipe = open({str(pipe)!r}, 'w')\nsay(event='progress')\nsignal.pause()"
    with Connection.open(loopback) as connection, contextlib.ExitStack() as stack:
        opened: list = []
        reader = threading.Thread(target=lambda: opened.append(stack.enter_context(open(pipe))))
        reader.start()
        with pytest.raises(KeyboardInterrupt):
            connection.call(program(code), on_event=interrupt_after(reader))
        assert opened[0].read() == "", "the pipe's other end closed"


def interrupt_after(thread: threading.Thread):
    def on_event(event: dict) -> None:
        thread.join()
        raise KeyboardInterrupt

    return on_event


def test_loopback_leaves_a_detached_job_alone(tmp_path):
    with serve(tmp_path / "target") as target, Connection.open(target) as connection:
        code = "import os\npid = os.fork()\nif pid: say(event='done', pid=pid); sys.exit()\n"
        code += "os.setsid()\nnull = os.open('/dev/null', os.O_RDWR)\n[os.dup2(null, n) for n in (0, 1, 2)]\n"
        code += "import time\ntime.sleep(60)"
        pid = connection.call(program(code))["pid"]
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def test_loopback_carries_a_stream_without_holding_it(loopback):
    """A far side that takes nothing must stop the source after the windows and buffers in between are full."""
    taken = 0

    def source():
        nonlocal taken
        for _ in range(60):
            taken += MIB
            yield bytes(MIB)

    with Connection.open(loopback) as connection:
        with pytest.raises(SilenceError):
            connection.call("exec sleep 20", source(), idle_seconds=1.0)
        assert taken < 16 * MIB
    with Connection.open(loopback) as connection:
        code = "n = 0\nwhile True:\n b = sys.stdin.buffer.read(1 << 20)\n if not b: break\n n += len(b)\n"
        assert connection.call(program(code + "say(event='done', n=n)"), source())["n"] == 60 * MIB
