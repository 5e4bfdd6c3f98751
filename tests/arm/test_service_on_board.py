"""Services on a whole emulated ARM64 machine: its systemd, logind, polkit, journal and power switch are real."""

from __future__ import annotations

import base64
import io
import shlex
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated_board import IMAGE, over_ssh, reporter

from liteship import service
from liteship.emulated.image import ensure_image
from liteship.emulated.machine import Machine, Options, start
from liteship.payload import agent_archive
from liteship.remote import Connection, RemoteError
from liteship.service import ServiceState

pytestmark = [pytest.mark.arm, pytest.mark.timeout(1800)]

ODD_FOLDER = "/home/pi/li té 100%h $HOME \"a\" 'b' c\\d"
RELEASE = "0123456789ab"
UNIT = "liteship-agent.service"
PATIENCE_SECONDS = 240.0
STUB = """
import os, sys, time
if "--help" in sys.argv:
    sys.exit(0)
folder = sys.argv[sys.argv.index("--folder") + 1]
print("goes on in", os.getcwd(), flush=True)
if os.path.exists(folder + "/fails"):
    sys.exit(5)
time.sleep(1e6)
"""


class SwitchedBoard:
    """A machine that can be switched off and on, and keeps its disk.

    Args:
        folder: Of the machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._image = folder, ensure_image(IMAGE, reporter())
        self.machine = self._start()

    def _start(self) -> Machine:
        return start(self._image, self._folder, Options(memory_mib=512), reporter(), name="board")

    def cut_power(self) -> None:
        """Switch it off and on again."""
        self.machine.kill()
        self.machine = self._start()

    def as_user(self, folder: str = "~/liteship") -> Connection:
        """A login as pi, with a liteship folder."""
        return Connection.open(self.machine.target.model_copy(update={"folder": folder}), connect_seconds=60.0)

    def as_root(self, command: str) -> str:
        """What a command of the board's owner prints, whatever its exit status."""
        return over_ssh(self.machine, "root", f"{command} 2>&1; true")


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwitchedBoard]:
    """A board of these tests' own."""
    switched = SwitchedBoard(tmp_path_factory.mktemp("machine") / "board")
    yield switched
    switched.machine.kill()


def shell(connection: Connection, command: str, stdin: bytes = b"") -> str:
    """Output of a command that is fed, whatever its exit status."""
    mark = """import base64, json, subprocess, sys
out = subprocess.run(sys.argv[1], shell=True, capture_output=True, check=False)
print("\\x1eliteship " + json.dumps({"event": "done", "out": base64.b64encode(out.stdout + out.stderr).decode()}))"""
    words = f"python3 -c {shlex.quote(mark)} {shlex.quote(command)}"
    answer = connection.call(words, [stdin], idle_seconds=PATIENCE_SECONDS)
    return base64.b64decode(answer["out"]).decode()


def deploy(connection: Connection, folder: str, agent: bytes) -> None:
    """Put an agent there as the active release."""
    release = shlex.quote(f"{folder}/releases/{RELEASE}")
    shell(connection, f"mkdir -p {release}; cat > {release}/liteship_agent.zip", agent)
    shell(connection, f"ln -sfn releases/{RELEASE} {shlex.quote(folder + '/current')}; sync")


def stub_agent() -> bytes:
    """An agent that has every verb, and runs for ever unless the folder has a file `fails`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", STUB)
    return buffer.getvalue()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, what
        time.sleep(1.0)


def agent_state(switched: SwitchedBoard, folder: str) -> ServiceState:
    with switched.as_user(folder) as connection:
        return service.status(connection, "agent").services[0]


def arguments_of(switched: SwitchedBoard, pid: int) -> list[str]:
    """The words of a process's command line, read as root: whoever looks is no login of pi."""
    return switched.as_root(f"cat /proc/{pid}/cmdline").split("\0")[:-1]


def main_pid(switched: SwitchedBoard) -> int:
    """Process of the service, read as root."""
    return int(switched.as_root("pgrep -u pi -f liteship_agent.zip || echo 0").split()[0])


def test_service_outlives_its_logins_a_kill_and_a_power_cut_and_is_removed_whole(switched: SwitchedBoard) -> None:
    with switched.as_user(ODD_FOLDER) as connection:
        deploy(connection, ODD_FOLDER, stub_agent())
        before = shell(connection, "ls -A ~/.config/systemd/user 2>/dev/null")
        installed = service.install(connection, "agent")
        again = service.install(connection, "agent")
    state = installed.services[0]
    assert (installed.changed, installed.lingers, state.enabled, state.active) == (True, True, True, "active")
    assert (again.changed, again.services[0].pid) == (False, state.pid)
    archive = f"{ODD_FOLDER}/current/liteship_agent.zip"
    wanted = ["/usr/bin/python3", "-I", "-S", "-B", archive, "resume", "--folder", ODD_FOLDER]
    assert state.pid is not None
    wait_until(lambda: "pi" not in switched.as_root("loginctl list-sessions"), "the login of pi has not ended")
    assert arguments_of(switched, state.pid) == wanted

    switched.as_root(f"kill -9 {state.pid}")
    wait_until(lambda: main_pid(switched) not in (0, state.pid), "it was not started again")
    assert agent_state(switched, ODD_FOLDER).restarts == 1

    switched.as_root("sync")
    switched.cut_power()
    wait_until(lambda: main_pid(switched) != 0, "it did not come back after the boot")
    assert arguments_of(switched, main_pid(switched)) == wanted
    assert "pi" not in switched.as_root("loginctl list-sessions")

    with switched.as_user(ODD_FOLDER) as connection:
        wait_until(
            lambda: any(f"goes on in {ODD_FOLDER}" in line for line in service.logs(connection, "agent", 20).lines),
            "its line is not in the journal",
        )
        removed = service.remove(connection)
        after = shell(connection, "ls -A ~/.config/systemd/user 2>/dev/null")
    assert (removed.removed, removed.lingers) == (("agent",), False)
    assert after == before
    assert main_pid(switched) == 0


def test_agent_that_fails_is_no_installed_service(switched: SwitchedBoard) -> None:
    with switched.as_user() as connection:
        deploy(connection, "/home/pi/liteship", stub_agent())
        shell(connection, "touch ~/liteship/fails")
        with pytest.raises(RemoteError) as caught:
            service.install(connection, "agent")
        assert f"{UNIT} that stays up is required. Received: exit-code, exit status 5" in caught.value.message
        assert service.status(connection, "agent").services[0].has_failed
        service.remove(connection)


def test_real_agent_with_nothing_to_do_is_installed_and_ends_well(switched: SwitchedBoard) -> None:
    with switched.as_user() as connection:
        deploy(connection, "/home/pi/liteship", agent_archive())
        shell(connection, "rm -f ~/liteship/fails")
        state = service.install(connection, "agent").services[0]
        wait_until(
            lambda: service.status(connection, "agent").services[0].active == "inactive", "it goes on without a job"
        )
        ended = service.status(connection, "agent").services[0]
        service.remove(connection)
    assert state.enabled
    assert (ended.result, ended.ending) == ("success", "success, exit status 0")


def test_polkit_that_refuses_is_one_line_with_the_command(switched: SwitchedBoard) -> None:
    with switched.as_user() as connection:
        deploy(connection, "/home/pi/liteship", stub_agent())
        switched.as_root("systemctl mask --now --runtime polkit.service")
        try:
            with pytest.raises(RemoteError) as caught:
                service.install(connection, "agent")
        finally:
            switched.as_root("systemctl unmask --runtime polkit.service")
        assert "Lingering of user pi is required" in caught.value.message
        assert "sudo loginctl enable-linger pi" in caught.value.hint
        assert not service.status(connection, "agent").services[0].installed


def test_facts_are_those_of_logind(switched: SwitchedBoard) -> None:
    with switched.as_user() as connection:
        usual = service.facts(connection)
        switched.as_root(
            "mkdir -p /etc/systemd/logind.conf.d; printf '[Login]\\nKillUserProcesses=yes\\nRemoveIPC=no\\n' > "
            "/etc/systemd/logind.conf.d/x.conf; systemctl restart systemd-logind"
        )
        changed = service.facts(connection)
    assert (usual["kill_user_processes"]["value"], usual["remove_ipc"]["value"]) == (False, True)
    assert (changed["kill_user_processes"]["value"], changed["remove_ipc"]["value"]) == (True, False)
    assert usual["remove_ipc"]["source"] == "logind"
    assert not changed["is_exempt"]
