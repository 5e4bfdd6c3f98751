import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import liteship.cli.targets as cli
from liteship.built_in import LOOPBACK
from liteship.errors import TargetError
from liteship.targets import Target, add_target, expand_targets, find_target, load_targets

EXAMPLE = Path(__file__).parents[2] / "targets.example.toml"
FINGERPRINT = "SHA256:" + "a" * 43
OTHER = "SHA256:" + "b" * 43
PI = '[targets.pi]\nhost = "raspberrypi.local"\nuser = "pi"\n'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """targets.toml, not there yet, of an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Path("targets.toml")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_is_terminal", lambda: True)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A board that presents FINGERPRINT; the list is filled with who was scanned."""
    scanned: list[tuple] = []

    def scan(target):
        scanned.append((target.host, target.port, target.proxy_jump))
        return FINGERPRINT

    monkeypatch.setattr(cli, "scan_host_key", scan)
    return scanned


def run(*arguments: str, answers: str = ""):
    return CliRunner().invoke(cli.app, arguments, input=answers)


def refused(result) -> TargetError:
    assert isinstance(result.exception, TargetError), (result.exception, result.output)
    assert result.exception.exit_code == 2
    return result.exception


def test_example_is_valid_and_every_commented_key_exists(path):
    assert load_targets(EXAMPLE)["pi"].host == "raspberrypi.local"
    lines = EXAMPLE.read_text().replace('"SHA256:..."', f'"{FINGERPRINT}"').splitlines()
    path.write_text("\n".join(line.removeprefix("# ") if " = " in line else line for line in lines))
    pi = load_targets(path)["pi"]
    assert pi.threads == (1, 4)
    assert set(pi.model_fields_set) == set(Target.model_fields)


def test_missing_file_holds_no_targets(path):
    assert load_targets(path) == {}


def test_defaults(path):
    path.write_text(PI)
    pi = load_targets(path)["pi"]
    assert (pi.folder, pi.runtime, pi.python, pi.threads) == ("~/liteship", "auto", "python3", (1,))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("port = 0", "port: a port from 1 to 65535 is required. Received: 0"),
        ("port = 65536", "port: a port from 1 to 65535 is required. Received: 65536"),
        ('port = "22"', "port: a port from 1 to 65535 is required. Received: '22'"),
        ("port = true", "port: a port from 1 to 65535 is required. Received: True"),
        ("threads = []", "threads: a list of 1 to 64 threads is required. Received: []"),
        ("threads = [0]", "threads: a list of 1 to 64 threads is required. Received: 0"),
        ("threads = [65]", "threads: a list of 1 to 64 threads is required. Received: 65"),
        ("threads = 4", "threads: a list of 1 to 64 threads is required. Received: 4"),
        ("cpus = [-1]", "cpus: a list of CPU numbers from 0 is required. Received: -1"),
        ("canary_ratio = nan", "canary_ratio: a ratio from 0 to 1 is required. Received: nan"),
        ("canary_ratio = 5", "canary_ratio: a ratio from 0 to 1 is required. Received: 5"),
        ('folder = ""', "folder: a folder on the target is required. Received: ''"),
        ('host_key_sha256 = "MD5:1"', "host_key_sha256: a fingerprint SHA256:... of 43 letters is required."),
        ('proxy_jump = "-oProxyCommand=x"', "proxy_jump: [user@]host[:port] is required."),
        ("prot = 22", "prot: a known key is required. Did you mean port?"),
        ("zzz = 22", "zzz: a known key is required. Known: canary_ratio, cpus,"),
        ('name = "x"', "keys without `name` are required"),
    ],
)
def test_wrong_value_names_file_and_key_and_what_is_required(path, line, message):
    path.write_text(f"{PI}{line}\n")
    with pytest.raises(TargetError) as caught:
        load_targets(path)
    assert str(caught.value).startswith("targets.toml: [targets.pi]")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[targets.pi]\nhost = ""\nuser = "pi"', "host: a host name or address is required. Received: ''"),
        ('[targets.pi]\nhost = "a b"\nuser = "pi"', "host: a host name or address is required. Received: 'a b'"),
        ('[targets.pi]\nuser = "pi"', "host: a host name or address is required. Received: nothing"),
        ('[target.pi]\nhost = "h"', "tables [targets.NAME] are required. Received: target"),
        ("targets = 1", "tables [targets.NAME] are required"),
        ("[targets]\npi = 1", "tables [targets.NAME] are required"),
        ('[targets.loopback]\nhost = "h"\nuser = "u"', "loopback is built in"),
        ('[targets.emulated]\nhost = "h"\nuser = "u"', "emulated is built in"),
        ('[targets."a,b"]\nhost = "h"\nuser = "u"', "a name of letters"),
        ("[targets.pi", "a readable TOML file is required"),
        ("\udcff", "a readable TOML file is required"),
    ],
)
def test_wrong_file_is_refused(path, text, message):
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TargetError) as caught:
        load_targets(path)
    assert message in str(caught.value)
    assert "targets.toml" in str(caught.value)


def test_add_keeps_comments_and_other_tables(path):
    before = f"# my boards\n{PI}# cpus = [3]\nport = 2222 # odd\n\n[targets.zero]\nhost = 'zero'\nuser = 'u'\n"
    path.write_text(before)
    new = Target(name="desk", host="10.0.0.5", user="me", folder="~/ordner mit ü", threads=(1, 2))
    add_target(path, new)
    text = path.read_text()
    assert all(line in text for line in before.splitlines())
    assert load_targets(path)["desk"] == new
    assert set(load_targets(path)) == {"pi", "zero", "desk"}


def test_add_changes_one_key_of_a_known_target(path):
    path.write_text(f"{PI}# important\nport = 2222 # odd\n")
    pi = load_targets(path)["pi"]
    add_target(path, pi.model_copy(update={"host_key_sha256": FINGERPRINT}))
    assert "# important\nport = 2222 # odd\n" in path.read_text()
    assert load_targets(path)["pi"].host_key_sha256 == FINGERPRINT


def test_add_makes_the_file(path):
    add_target(path, Target(name="pi", host="h", user="u"))
    assert path.read_text() == '[targets.pi]\nhost = "h"\nuser = "u"\n'


def test_add_leaves_a_broken_file_alone(path):
    path.write_text("[targets.pi\n")
    with pytest.raises(TargetError):
        add_target(path, Target(name="desk", host="h", user="u"))
    assert path.read_text() == "[targets.pi\n"


def test_builtin_names_cannot_be_added(path):
    with pytest.raises(TargetError, match="built in"):
        add_target(path, Target(name=LOOPBACK, host="h", user="u"))


def test_loopback_is_found_without_a_file(path):
    assert find_target(LOOPBACK, path).folder == ".liteship/loopback"


def test_unknown_target_without_terminal_gives_the_exact_line(path):
    with pytest.raises(TargetError) as caught:
        find_target("pi", path)
    assert caught.value.exit_code == 2
    assert caught.value.hint == "liteship targets add pi --host raspberrypi.local --user pi"
    assert "loopback" in caught.value.message


def test_typo_of_a_target_names_the_nearest_and_all_known(path):
    path.write_text(PI.replace("targets.pi", "targets.kitchen"))
    with pytest.raises(TargetError) as caught:
        find_target("kichen", path)
    assert "loopback, emulated, kitchen" in caught.value.message
    assert "Did you mean kitchen?" in caught.value.hint
    assert caught.value.hint.endswith("liteship targets add kichen --host raspberrypi.local --user pi")


def test_unknown_target_is_asked_for_and_written(path):
    def ask(name):
        return Target(name=name, host="h", user="u")

    assert find_target("pi", path, ask) == load_targets(path)["pi"]


def test_name_that_cannot_be_one_is_not_asked_for(path):
    with pytest.raises(TargetError):
        find_target("a,b", path, lambda name: pytest.fail("asked"))


def test_dialogue_asks_host_user_key_and_trust(path, terminal, board, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    monkeypatch.setattr(cli.getpass, "getuser", lambda: "ann")
    answers = iter(["raspberrypi.local", "ann", ""])
    asked: list[tuple] = []

    def prompt(text, default, err):
        asked.append((text, default))
        return next(answers)

    monkeypatch.setattr(cli.typer, "prompt", prompt)
    monkeypatch.setattr(cli.typer, "confirm", lambda text, default, err: True)
    found = find_target("pi", path, cli.dialogue())
    assert asked == [("Host", "raspberrypi.local"), ("User", "ann"), ("Key file (empty: the ssh agent)", "")]
    assert board == [("raspberrypi.local", None, None)]
    assert (found.host, found.user, found.identity_file) == ("raspberrypi.local", "ann", None)
    assert found.host_key_sha256 == FINGERPRINT
    assert load_targets(path)["pi"] == found


def test_there_is_no_dialogue_without_a_terminal():
    assert cli.dialogue() is None


def test_cli_add_shows_the_fingerprint_and_asks(path, terminal, board):
    result = run("add", "pi", "--host", "h", "--user", "u", "--port", "2222", answers="y\n")
    assert result.exit_code == 0, result.output
    assert f"h:2222 presents the host key {FINGERPRINT}" in result.stderr
    assert "host key" not in result.stdout
    assert load_targets(path)["pi"].host_key_sha256 == FINGERPRINT


def test_cli_add_writes_nothing_after_no(path, terminal, board):
    refused(run("add", "pi", "--host", "h", "--user", "u", answers="n\n"))
    assert not path.exists()


def test_cli_add_without_terminal_requires_the_fingerprint(path, board):
    error = refused(run("add", "pi", "--host", "h", "--user", "u"))
    assert FINGERPRINT in error.message
    assert "--host-key-sha256" in error.hint
    assert not path.exists()


def test_cli_add_with_fingerprint_connects_to_nobody(path, board):
    options = ["--identity-file", "~/k", "--folder", "~/x y", "--python", "python3.11", "--runtime", "tflite-runtime"]
    result = run("add", "pi", "--host", "h", "--user", "u", "--host-key-sha256", FINGERPRINT, *options)
    assert result.exit_code == 0, result.output
    pi = load_targets(path)["pi"]
    assert (pi.identity_file, pi.folder, pi.python, pi.runtime) == ("~/k", "~/x y", "python3.11", "tflite-runtime")
    assert board == []


def test_cli_add_refuses_a_known_name(path, board):
    path.write_text(PI)
    assert "targets trust pi" in refused(run("add", "pi", "--host", "h", "--user", "u")).hint


def test_cli_add_names_a_wrong_option(path, board):
    error = refused(run("add", "pi", "--host", "h", "--user", "u", "--port", "70000"))
    assert "port: a port from 1 to 65535 is required. Received: 70000" in error.message


def test_cli_trust_warns_of_a_changed_key_and_writes_it_after_yes(path, terminal, board):
    path.write_text(f'{PI}host_key_sha256 = "{OTHER}"\nproxy_jump = "gate"\n')
    refused(run("trust", "pi", answers="n\n"))
    assert load_targets(path)["pi"].host_key_sha256 == OTHER
    result = run("trust", "pi", answers="y\n")
    assert f"NOT the trusted one, {OTHER}" in result.stderr
    assert load_targets(path)["pi"].host_key_sha256 == FINGERPRINT
    assert board[0] == ("raspberrypi.local", None, "gate")


def test_cli_trust_without_terminal_changes_nothing(path, board):
    path.write_text(f'{PI}host_key_sha256 = "{OTHER}"\n')
    refused(run("trust", "pi"))
    assert load_targets(path)["pi"].host_key_sha256 == OTHER


def test_cli_trust_of_an_unknown_target(path, terminal, board):
    assert "liteship targets add pi" in refused(run("trust", "pi")).hint


def test_cli_list_json_has_every_field(path):
    path.write_text(PI)
    loopback, emulated, pi = json.loads(run("list", "--json").stdout)
    assert (emulated["name"], emulated["port"]) == ("emulated", None)
    assert loopback["name"] == LOOPBACK
    assert set(pi) == set(Target.model_fields)
    assert pi["host"] == "raspberrypi.local"


def test_cli_list_shows_loopback_as_no_board(path):
    path.write_text(PI)
    shown = run("list").stdout
    assert "not a" in shown
    assert "pi" in shown


# --- several targets ---

DESK = """
[targets.pi4]
host = "pi4"
groups = ["desk", "all"]
[targets.pi5]
host = "pi5"
groups = ["desk"]
[targets.zero]
host = "zero"
groups = ["all"]
"""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("pi4", ("pi4",)),
        ("loopback", ("loopback",)),
        ("pi5,pi4", ("pi5", "pi4")),
        (" pi5 , loopback", ("pi5", "loopback")),
        ("desk", ("pi4", "pi5")),
        ("zero,desk,all,pi4", ("zero", "pi4", "pi5")),
    ],
)
def test_names_and_groups_are_expanded_in_order_and_once(path, text, names):
    path.write_text(DESK)
    assert expand_targets(text) == names


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("pi4,pii5", "Received: pii5.", "Did you mean pi5?"),
        ("dsk", "Received: dsk.", "Did you mean desk?"),
        (
            "pi4,board",
            "(loopback, emulated, pi4, pi5, zero, desk, all). Received: board.",
            "liteship targets add board",
        ),
        ("pi4,", "Received: 'pi4,'.", ""),
        ("", "Received: ''.", ""),
    ],
)
def test_word_that_is_neither_target_nor_group_is_named(path, text, message, hint):
    path.write_text(DESK)
    with pytest.raises(TargetError) as caught:
        expand_targets(text)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_new_names_are_kept_where_somebody_can_be_asked(path):
    path.write_text(DESK)
    assert expand_targets("pi4,board", may_be_new=True) == ("pi4", "board")


def test_loopback_alone_needs_no_inventory_that_can_be_read(path):
    path.write_text("[targets")
    assert expand_targets("loopback") == ("loopback",)


# --- ~/.ssh/config ---


@pytest.fixture
def config(path, tmp_path):
    """~/.ssh/config that knows one board."""
    file = tmp_path / "home/.ssh/config"
    file.parent.mkdir(parents=True)
    file.write_text("Host pi\nHostName 10.0.0.7\nUser ann\nPort 2222\nIdentityFile ~/.ssh/pi\n")
    return file


def test_cli_add_needs_no_user_and_shows_the_resolved_address(config, path, terminal, board):
    result = run("add", "pi", "--host", "pi", answers="y\n")
    assert result.exit_code == 0, result.output
    assert f"10.0.0.7:2222 presents the host key {FINGERPRINT}" in result.stderr
    assert "pi (ann@10.0.0.7:2222) is now in targets.toml" in result.stderr
    assert path.read_text() == f'[targets.pi]\nhost = "pi"\nhost_key_sha256 = "{FINGERPRINT}"\n'
    listed = CliRunner().invoke(cli.app, ["list"], env={"COLUMNS": "200"})
    assert "ann@10.0.0.7:2222" in listed.stdout


def test_dialogue_asks_only_what_the_configuration_does_not_say(config, path, terminal, board, monkeypatch):
    asked = []

    def prompt(text, default, err):
        asked.append(text)
        return "pi"

    monkeypatch.setattr(cli.typer, "prompt", prompt)
    monkeypatch.setattr(cli.typer, "confirm", lambda text, default, err: True)
    assert find_target("pi", path, cli.dialogue()).user is None
    assert asked == ["Host"]
