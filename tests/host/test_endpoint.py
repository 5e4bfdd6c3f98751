from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path

import pytest

from liteship.built_in import LOOPBACK
from liteship.errors import TargetError
from liteship.link.endpoint import Endpoint, resolve
from liteship.targets import Target

Resolve = Callable[..., Endpoint]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .ssh folder of an empty home."""
    folder = tmp_path / ".ssh"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ann")
    return folder


@pytest.fixture
def endpoint(ssh: Path) -> Resolve:
    """Resolves the target `pi` with a text as ~/.ssh/config."""

    def resolved(config: str = "", host: str = "pi", **fields: object) -> Endpoint:
        if config:
            (ssh / "config").write_text(config)
        return resolve(Target(name="pi", host=host, **fields))

    return resolved


def test_without_a_configuration_the_usual_defaults_hold(endpoint: Resolve) -> None:
    found = endpoint()
    assert (found.address, found.known_as, found.identity_files) == (f"{getpass.getuser()}@pi:22", "pi", ())
    assert (found.names_user, found.identities_only) == (False, False)
    assert (found.proxy_jump, found.proxy_command) == (None, None)


CONFIG = """
# boards
Host pi
    HostName 10.0.0.7
    User pi
    Port 2222
    IdentityFile ~/keys/%h
    IdentityFile "~/keys/with space"
    IdentitiesOnly yes
    ProxyJump gate,inner
Host *
    User nobody
    IdentityFile ~/.ssh/everywhere
"""


def test_configuration_says_what_the_inventory_does_not(endpoint: Resolve, tmp_path: Path) -> None:
    found = endpoint(CONFIG)
    assert found.address == "pi@10.0.0.7:2222"
    assert found.known_as == "[10.0.0.7]:2222"
    assert [path.relative_to(tmp_path) for path in found.identity_files] == [
        Path("keys/10.0.0.7"),
        Path("keys/with space"),
        Path(".ssh/everywhere"),
    ]
    assert (found.identities_only, found.proxy_jump, found.names_user) == (True, "gate,inner", True)


def test_inventory_wins_over_the_configuration(endpoint: Resolve) -> None:
    found = endpoint(CONFIG, port=22, user="me", identity_file="~/mine", proxy_jump="other")
    assert found.address == "me@10.0.0.7:22"
    assert found.identity_files[0] == Path("~/mine").expanduser()
    assert found.proxy_jump == "other"


def test_tokens_see_what_the_inventory_says(endpoint: Resolve) -> None:
    found = endpoint("Host *\nProxyCommand relay %r %h %p\n", port=2022, user="me")
    assert (found.proxy_command, found.proxy_jump) == ("relay me pi 2022", None)


@pytest.mark.parametrize("way", ["ProxyJump none\nProxyCommand relay", "ProxyCommand none\nProxyJump gate"])
def test_detour_that_is_named_first_decides_and_none_is_none(endpoint: Resolve, way: str) -> None:
    found = endpoint(way)
    assert (found.proxy_jump, found.proxy_command) == (None, None)


def test_key_alias_is_the_name_in_known_hosts_whatever_the_port(endpoint: Resolve) -> None:
    assert endpoint("HostKeyAlias desk-pi\nPort 2222\n").known_as == "desk-pi"


def test_address_of_other_hosts_is_not_taken(endpoint: Resolve) -> None:
    assert endpoint("Host zero\nPort 1\nHost !pi *\nPort 2\n").port == 22


def test_included_files_are_read_and_the_block_around_them_goes_on(endpoint: Resolve, ssh: Path) -> None:
    (ssh / "boards").mkdir()
    (ssh / "boards/pi.conf").write_text("Host pi\nUser included\nHost zero\nUser zero\n")
    (ssh / "boards/z.conf").write_text("Host nobody\nPort 1\n")
    found = endpoint("Include boards/*.conf missing\nPort 2222\n")
    assert (found.user, found.port) == ("included", 2222)


def test_built_in_targets_are_no_host_of_the_configuration(ssh: Path) -> None:
    (ssh / "config").write_text("Host *\nHostName elsewhere\nProxyJump gate\nUser nobody\n")
    found = resolve(Target(name=LOOPBACK, host="127.0.0.1", port=1234, user="me"))
    assert (found.address, found.proxy_jump) == ("me@127.0.0.1:1234", None)


@pytest.mark.parametrize(
    ("config", "received"),
    [
        ("Host pi\nnonsense\n", "Unparsable line nonsense"),
        ("Port ssh\n", "Port from 1 to 65535 is required for pi. Received: ssh"),
        ("Port 70000\n", "Port from 1 to 65535 is required for pi. Received: 70000"),
        ("Match nonsense\n", "an OpenSSH client configuration is required"),
        ("Include config\n", "included too deeply"),
        ('Include "open\n', "No closing quotation"),
    ],
)
def test_broken_configuration_is_one_clear_line(endpoint: Resolve, config: str, received: str) -> None:
    with pytest.raises(TargetError) as caught:
        endpoint(config)
    assert ".ssh/config" in caught.value.message
    assert received in caught.value.message
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_configuration_that_is_no_text_is_one_clear_line(endpoint: Resolve, ssh: Path) -> None:
    (ssh / "config").write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError, match="config: an OpenSSH client configuration is required"):
        endpoint()
