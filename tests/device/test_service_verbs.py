from __future__ import annotations

import io
import json
import os
import pwd
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from board_samples import no_pause
from hypothesis import given
from hypothesis import strategies as st

from liteship_agent.service import logind, main, systemd, units
from liteship_agent.service.units import UNITS, unit_text
from liteship_agent.store.events import EVENT_MARK, StoreError

USER = pwd.getpwuid(os.getuid()).pw_name
AGENT, CAMERA = UNITS["agent"], UNITS["camera"]
CALM = {
    "calls": [],
    "lingers": False,
    "is_known": True,
    "polkit": "allows",
    "deaf": 0,
    "behavior": "stays",
    "pid": 100,
    "links": {},
    "units": {},
    "logind": {"KillUserProcesses": False, "RemoveIPC": True, "KillExcludeUsers": ["nobody"], "KillOnlyUsers": []},
    "journal": {"stdout": "", "stderr": "", "code": 0},
}


class Systemd:
    """A board with a user's systemd that is a program of recorded answers.

    Args:
        folder: Empty; the liteship folder and the board's files are made in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder / "lite ship", folder / "root"
        self.file, self.programs = folder / "systemd.json", folder / "bin"
        (self.root / "run/systemd/system").mkdir(parents=True)
        self.programs.mkdir()
        fake = Path(__file__).with_name("fake_systemd.py").read_text()
        for name in ("systemctl", "loginctl", "busctl", "journalctl"):
            (self.programs / name).write_text(f"#!{sys.executable} -IS\n{fake}")
            (self.programs / name).chmod(0o755)
        self.file.write_text(json.dumps(CALM))
        self.deploy("0123456789ab", "resume", "camera")

    def deploy(self, release: str, *verbs: str) -> None:
        """Make a release current whose agent has some verbs."""
        path = self.folder / "releases" / release
        path.mkdir(parents=True)
        with zipfile.ZipFile(path / "liteship_agent.zip", "w") as archive:
            archive.writestr("__main__.py", f"import sys\nsys.exit(0 if sys.argv[1] in {verbs!r} else 2)")
        current = self.folder / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(Path("releases") / release)

    def set(self, **changes: object) -> None:
        self.file.write_text(json.dumps({**self.state(), **changes}))

    def state(self) -> dict:
        return json.loads(self.file.read_text())

    def calls(self, *words: str) -> list[str]:
        """The calls so far that have one of these words, and forget them all."""
        found = [call for call in self.state()["calls"] if any(word in call for word in words)]
        self.set(calls=[])
        return found

    def unit(self, unit: units.Unit = AGENT) -> Path:
        return self.folder / "units" / unit.name


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    board = Systemd(tmp_path)
    monkeypatch.setattr(systemd, "ROOT", board.root)
    monkeypatch.setenv("PATH", str(board.programs))
    monkeypatch.setenv("FAKE_SYSTEMD", str(board.file))
    return board


def install(board: Systemd, what: str = "agent") -> dict:
    return main.install(board.folder, what, no_pause)


def refuse_install(board: Systemd, what: str = "agent") -> StoreError:
    with pytest.raises(StoreError) as caught:
        install(board, what)
    return caught.value


# --- unit files ---


def test_unit_starts_the_agent_through_current_and_again_on_failure() -> None:
    text = unit_text(AGENT, Path("/home/pi/liteship"), "/usr/bin/python3")

    assert text.splitlines() == [
        "# Written by `liteship service install agent`, which overwrites changes.",
        "[Unit]",
        "Description=liteship agent: goes on with jobs that were interrupted",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=exec",
        'ExecStart="/usr/bin/python3" -I -S -B /home/pi/liteship/current/liteship_agent.zip '
        "resume --folder /home/pi/liteship",
        "WorkingDirectory=/home/pi/liteship",
        "Restart=on-failure",
        "RestartSec=10",
        "OOMPolicy=continue",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]


def test_path_with_everything_that_systemd_reads_is_escaped() -> None:
    folder = Path("/home/pi/li té/100%h $HOME \"a\" 'b' c\\d;e")

    lines = unit_text(CAMERA, folder, "/opt/my %python/bin/python3").splitlines()

    escaped = "/home/pi/li té/100%%h $$HOME \\\"a\\\" 'b' c\\\\d;e"
    assert (
        f'ExecStart="/opt/my %%python/bin/python3" -I -S -B "{escaped}/current/liteship_agent.zip" '
        f'camera --folder "{escaped}" --port 8800'
    ) in lines
    assert "WorkingDirectory=/home/pi/li té/100%%h $HOME \"a\" 'b' c\\d;e" in lines


def words_of(line: str) -> list[str]:
    """The words of a command line as systemd.service(5) describes it: quotes, backslashes, specifiers, variables."""
    words, word, quote, escaped = [], None, "", False
    for mark in line:
        if escaped:
            word, escaped = (word or "") + mark, False
        elif mark == "\\":
            escaped = True
        elif quote:
            quote, word = ("", word) if mark == quote else (quote, (word or "") + mark)
        elif mark in "\"'":
            quote, word = mark, word or ""
        elif mark == " ":
            words, word = (words if word is None else [*words, word]), None
        else:
            word = (word or "") + mark
    words = words if word is None else [*words, word]
    for text in words:
        assert "%" not in text.replace("%%", "")
        assert "$" not in text.replace("$$", "")
    return [text.replace("%%", "%").replace("$$", "$") for text in words]


@given(st.lists(st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1), min_size=1))
def test_systemd_reads_back_the_words_that_were_quoted(texts: list[str]) -> None:
    assert words_of(" ".join(map(units.quote_word, texts))) == texts


@pytest.mark.parametrize("folder", ["/a\nb", "/a\tb", "/caf\udce9", "/ends ", "/ends\\"])
def test_folder_that_no_unit_file_can_name_is_refused(folder: str) -> None:
    with pytest.raises(StoreError, match=r"is required\. Received: '/"):
        unit_text(AGENT, Path(folder), "/usr/bin/python3")


@pytest.mark.parametrize("python", ["", "python3", '/opt/"p"/python3', "/opt/'p'/python3", "/a\\b", "/a$b"])
def test_interpreter_that_systemd_cannot_start_is_refused(python: str) -> None:
    with pytest.raises(StoreError) as caught:
        unit_text(AGENT, Path("/x"), python)

    assert caught.value.kind == "python"
    assert caught.value.message.endswith(f"Received: {python}".strip())


# --- install ---


def test_install_lingers_links_starts_and_verifies(board: Systemd) -> None:
    answer = install(board)

    assert answer["changed"]
    assert answer["service"]["installed"]
    assert answer["service"]["enabled"]
    assert (answer["service"]["active"], answer["service"]["pid"]) == ("active", 101)
    assert (answer["lingers"], answer["user"]) == (True, USER)
    assert board.unit().read_text() == unit_text(AGENT, board.folder, sys.executable)
    assert board.state()["links"] == {AGENT.name: str(board.unit())}
    assert board.calls("linger", "enable", "restart", "reload") == [
        f"loginctl enable-linger {USER}",
        "systemctl --user daemon-reload",
        f"systemctl --user enable --force {board.unit()}",
        f"systemctl --user restart {AGENT.name}",
    ]


def test_second_install_changes_nothing(board: Systemd) -> None:
    first = install(board)
    board.calls()

    second = install(board)

    assert second == {**first, "changed": False}
    assert board.calls("restart", "enable-linger") == []


def test_install_over_a_changed_unit_restarts(board: Systemd) -> None:
    install(board)
    board.unit().write_text("[Service]\n")
    board.calls()

    answer = install(board)

    assert answer["changed"]
    assert answer["service"]["pid"] == 102
    assert board.calls("restart") == [f"systemctl --user restart {AGENT.name}"]


def test_agent_that_had_nothing_to_do_is_installed(board: Systemd) -> None:
    board.set(behavior="ends")

    service = install(board)["service"]

    assert (service["installed"], service["active"], service["result"]) == (True, "inactive", "success")
    assert service["ending"] == "success, exit status 0"


def test_camera_that_ends_is_not_installed_well(board: Systemd) -> None:
    board.set(behavior="ends")

    error = refuse_install(board, "camera")

    assert error.message == "liteship-camera.service that stays up is required. Received: success, exit status 0"
    assert "service logs camera" in error.hint


@pytest.mark.parametrize(
    ("behavior", "received"),
    [
        ("fails", "liteship-agent.service that stays up is required. Received: exit-code, exit status 5"),
        ("starts for ever", "liteship-agent.service that stays up is required. Received: activating, no process"),
        (
            "does not start",
            "`systemctl --user restart` that succeeds is required. Received: Job for liteship-agent.service failed "
            "because the control process exited with error code.",
        ),
    ],
)
def test_unit_that_does_not_stay_up_is_an_error(board: Systemd, behavior: str, received: str) -> None:
    board.set(behavior=behavior)

    assert refuse_install(board).message == received


def test_unit_that_is_restarted_all_the_time_does_not_stay_up(board: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    show = systemd.show

    def show_another(unit: units.Unit) -> dict[str, str]:
        state = board.state()
        if unit.name in state["units"]:
            state["units"][unit.name]["MainPID"] += 1
            board.set(units=state["units"])
        return show(unit)

    monkeypatch.setattr(main, "show", show_another)

    assert "that stays up is required" in refuse_install(board).message


def test_camera_without_an_agent_that_has_it_is_refused_before_anything_changes(board: Systemd) -> None:
    board.deploy("abcdef012345", "resume")

    error = refuse_install(board, "camera")

    assert error.message == (
        "An agent with the verb camera is required for the camera service. "
        "Received: that of release abcdef012345, which has none"
    )
    assert not board.unit(CAMERA).exists()
    assert board.state()["calls"] == []


def test_folder_without_a_release_is_refused(board: Systemd) -> None:
    (board.folder / "current").unlink()

    error = refuse_install(board)

    assert error.message == f"An active release in {board.folder} is required. Received: none"
    assert error.hint


def test_agent_that_does_not_even_start_is_named_as_such(board: Systemd) -> None:
    (board.folder / "current/liteship_agent.zip").write_bytes(b"no archive")

    assert refuse_install(board).message.startswith("An agent that starts is required. Received: ")


def test_refused_lingering_names_the_command_and_leaves_nothing(board: Systemd) -> None:
    board.set(polkit="refuses")

    error = refuse_install(board)

    assert error.kind == "lingering"
    assert error.message.endswith("Received: Could not enable linger: Interactive authentication required.")
    assert f"sudo loginctl enable-linger {USER}" in error.hint
    assert not (board.folder / "units").exists()
    assert board.state()["links"] == {}


def test_lingering_that_was_said_to_work_and_did_not_is_refused(board: Systemd) -> None:
    board.set(polkit="lies")

    assert refuse_install(board).message.endswith("Received: Linger=no")


def test_lingering_is_read_from_its_file_where_logind_does_not_know_the_user(board: Systemd) -> None:
    board.set(is_known=False)
    assert not logind.lingers()

    (board.root / "var/lib/systemd/linger").mkdir(parents=True)
    (board.root / "var/lib/systemd/linger" / USER).touch()

    assert logind.lingers()


def test_systemd_of_the_user_that_is_starting_is_waited_for(board: Systemd) -> None:
    board.set(deaf=3)

    assert install(board)["service"]["active"] == "active"


def test_user_without_a_systemd_is_one_line(board: Systemd) -> None:
    board.set(deaf=1000)

    with pytest.raises(StoreError) as caught:
        main.status(board.folder)
    for error in (refuse_install(board), caught.value):
        assert error.message == (
            f"A running systemd of user {USER} is required. Received: Failed to connect to bus: No medium found"
        )
        assert "libpam-systemd" in error.hint


@pytest.mark.parametrize(
    "verb", [main.install, main.status, main.remove, lambda folder, what: main.logs(folder, what, 5)]
)
def test_machine_without_systemd_is_one_line(board: Systemd, verb) -> None:
    (board.root / "run/systemd/system").rmdir()

    with pytest.raises(StoreError, match=r"A machine under systemd is required\. Received: one with another init"):
        verb(board.folder, "agent")

    assert board.state()["calls"] == []


def test_missing_program_is_named(board: Systemd) -> None:
    (board.programs / "systemctl").unlink()

    assert refuse_install(board).message == "The program systemctl is required. Received: none on PATH"


def test_unit_of_another_folder_is_not_taken_over(board: Systemd, tmp_path: Path) -> None:
    other = tmp_path / "other" / AGENT.name
    board.set(links={AGENT.name: str(other)})

    error = refuse_install(board)

    assert error.message.endswith(f"Received: one of {other}")
    assert not board.unit().exists()
    assert main.remove(board.folder)["removed"] == []
    assert board.state()["links"] == {AGENT.name: str(other)}
    (service,) = main.status(board.folder, "agent")["services"]
    assert (service["installed"], service["other_folder"]) == (False, str(other))


def test_unit_is_replaced_at_once_or_not_at_all(board: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    install(board)
    before = board.unit().read_text()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        units.write_unit(board.unit(), "other")

    assert board.unit().read_text() == before


def test_addresses_of_the_users_systemd_are_set_where_they_are_missing(
    board: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    main.status(board.folder)
    place = f"/run/user/{os.getuid()}"
    assert board.state()["environment"] == {
        "XDG_RUNTIME_DIR": place,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={place}/bus",
    }

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/other")
    main.status(board.folder)
    assert board.state()["environment"]["DBUS_SESSION_BUS_ADDRESS"] == "unix:path=/run/other/bus"


# --- status and remove ---


def test_status_tells_both_services(board: Systemd) -> None:
    install(board)

    answer = main.status(board.folder)

    assert [(service["what"], service["installed"]) for service in answer["services"]] == [
        ("agent", True),
        ("camera", False),
    ]
    assert answer["lingers"]


def test_remove_leaves_the_board_as_it_was(board: Systemd) -> None:
    before = sorted(board.folder.rglob("*"))
    install(board)

    answer = main.remove(board.folder)

    assert (answer["removed"], answer["lingers"]) == (["agent"], False)
    assert sorted(board.folder.rglob("*")) == before
    assert (board.state()["links"], board.state()["units"]) == ({}, {})
    assert main.remove(board.folder)["removed"] == []


def test_service_that_has_ended_is_stopped_while_systemd_still_knows_it(board: Systemd) -> None:
    board.set(behavior="ends")
    install(board)
    board.calls()

    assert main.remove(board.folder)["removed"] == ["agent"]

    assert board.calls("stop", "disable ") == [
        f"systemctl --user stop {AGENT.name}",
        f"systemctl --user disable {AGENT.name}",
    ]


def test_remove_leaves_lingering_that_was_there_before(board: Systemd) -> None:
    board.set(lingers=True)
    install(board)

    assert main.remove(board.folder)["lingers"]
    assert board.calls("able-linger") == []


def test_lingering_stays_until_the_last_service_is_removed(board: Systemd) -> None:
    install(board, "agent")
    install(board, "camera")

    first = main.remove(board.folder, "agent")
    second = main.remove(board.folder, "camera")

    assert (first["removed"], first["lingers"]) == (["agent"], True)
    assert (second["removed"], second["lingers"]) == (["camera"], False)


def test_lingering_that_cannot_be_restored_is_said_after_the_removal(board: Systemd) -> None:
    install(board)
    board.set(polkit="refuses")

    with pytest.raises(StoreError) as caught:
        main.remove(board.folder)

    assert f"sudo loginctl disable-linger {USER}" in caught.value.hint
    assert board.state()["links"] == {}


# --- logs ---


def read_logs(board: Systemd, stdout: str = "", stderr: str = "", code: int = 0) -> dict:
    board.set(journal={"stdout": stdout, "stderr": stderr, "code": code})
    return main.logs(board.folder, "agent", 20)


def test_logs_are_the_lines_of_the_unit_wherever_the_journal_has_them(board: Systemd) -> None:
    line = "2026-11-22T10:15:00+0000 board python3[101]: job 1: goes on"

    answer = read_logs(board, f"-- Boot 0123 --\n{line}\n")

    assert answer == {"lines": [line], "persistent": False}
    assert board.calls("journalctl") == [
        f"journalctl --user-unit={AGENT.name} --lines=20 --no-pager --output=short-iso"
    ]


def test_journal_on_the_disk_outlives_a_boot(board: Systemd) -> None:
    (board.root / "var/log/journal/0123").mkdir(parents=True)
    assert not read_logs(board)["persistent"]

    (board.root / "var/log/journal/0123/user-1000.journal").touch()

    assert read_logs(board, "-- No entries --\n") == {"lines": [], "persistent": True}


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        ("", "No journal files were opened due to insufficient permissions.\n", 1),
        ("-- No entries --\n", "Hint: You are currently not seeing messages from other users and the system.\n", 0),
        ("", "No journal files were found.\n", 0),
    ],
)
def test_journal_that_cannot_be_read_names_the_group(board: Systemd, stdout: str, stderr: str, code: int) -> None:
    with pytest.raises(StoreError) as caught:
        read_logs(board, stdout, stderr, code)

    assert caught.value.kind == "permission"
    assert caught.value.message.endswith(f"Received: {stderr.strip()}")
    assert caught.value.hint == f"sudo usermod -aG systemd-journal {USER}; log in again"


def test_hint_about_other_users_is_no_error_where_the_own_lines_are_there(board: Systemd) -> None:
    assert read_logs(board, "a line\n", "Hint: You are currently not seeing messages from other users.\n")["lines"]


# --- facts ---


def test_facts_are_those_that_logind_has_in_use(board: Systemd) -> None:
    assert logind.facts() == {
        "kill_user_processes": {"value": False, "source": "logind", "reason": None},
        "remove_ipc": {"value": True, "source": "logind", "reason": None},
        "is_exempt": False,
        "lingers": False,
        "user": USER,
        "has_systemd": True,
    }


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"KillExcludeUsers": [USER], "KillOnlyUsers": []}, True),
        ({"KillExcludeUsers": [], "KillOnlyUsers": []}, False),
        ({"KillExcludeUsers": [], "KillOnlyUsers": ["somebody"]}, True),
        ({"KillExcludeUsers": [], "KillOnlyUsers": [USER]}, False),
    ],
)
def test_users_that_logind_spares_are_exempt(board: Systemd, lists: dict, expected: bool) -> None:
    board.set(logind={"KillUserProcesses": True, "RemoveIPC": True, **lists})

    assert logind.facts()["is_exempt"] is expected


def test_settings_are_read_from_files_where_logind_does_not_answer(board: Systemd) -> None:
    board.set(logind={})
    for name, text in {
        "etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=no\nKillUserProcesses=no\n",
        "usr/lib/systemd/logind.conf.d/20-vendor.conf": "[Login]\nKillUserProcesses = no\n",
        "etc/systemd/logind.conf.d/20-vendor.conf": "[Login]\nKillUserProcesses = yes\n",
        "usr/lib/systemd/logind.conf.d/10-early.conf": "[Login]\nKillUserProcesses=no\n",
    }.items():
        (board.root / name).parent.mkdir(parents=True, exist_ok=True)
        (board.root / name).write_text(text)

    facts = logind.facts()

    assert facts["kill_user_processes"] == {
        "value": True,
        "source": "/etc/systemd/logind.conf.d/20-vendor.conf",
        "reason": None,
    }
    assert facts["remove_ipc"]["value"] is None
    assert "none of its files has it" in facts["remove_ipc"]["reason"]


def test_machine_without_systemd_has_reasons_and_asks_nothing(board: Systemd) -> None:
    (board.root / "run/systemd/system").rmdir()

    facts = logind.facts()

    unknown = {"value": None, "source": None, "reason": "systemd does not run here"}
    assert (facts["kill_user_processes"], facts["remove_ipc"]) == (unknown, unknown)
    assert (facts["lingers"], facts["is_exempt"], facts["has_systemd"]) == (False, False, False)
    assert board.state()["calls"] == []


# --- command ---


@pytest.fixture
def events(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict]]:
    """Reads the events so far; the process that tests keeps its signal handlers."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def read() -> list[dict]:
        mark = EVENT_MARK.decode()
        return [json.loads(line.removeprefix(mark)) for line in capfd.readouterr().out.split("\n")[:-1]]

    return read


def call(*arguments: str) -> int:
    return main.main(arguments, io.BytesIO())


def test_every_verb_answers_with_one_event(board: Systemd, events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "SETTLE_SECONDS", 0.0)
    folder = str(board.folder)
    for arguments in (
        ("install", folder, "agent"),
        ("status", folder),
        ("status", folder, "camera"),
        ("logs", folder, "agent", "3"),
        ("facts", folder),
        ("remove", folder),
    ):
        assert call(*arguments) == 0, arguments
        assert [event["event"] for event in events() if event["event"] != "progress"] == ["done"], arguments


@pytest.mark.parametrize("arguments", [("fly", "~"), ("install", "~", "rocket"), ("logs", "~", "rocket", "3")])
def test_unknown_verb_or_service_is_an_error_event(board: Systemd, events, arguments: tuple[str, ...]) -> None:
    assert call(*arguments) == 1
    assert events()[-1]["kind"] == "protocol"
