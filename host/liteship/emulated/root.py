"""The files of the emulated board: Debian packages unpacked for ARM64, and what their scripts would have set up.

Nothing of the guest runs while it is made: packages are unpacked, never configured, which takes seconds instead of
minutes of emulation. What a maintainer script would have done and the guest needs stands here and under guest/root.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from liteship.errors import LinkError

SUITE = "bookworm"
PYTHON = (3, 11)
"""Of the suite."""
USER = "pi"
USER_ID = 1000
PACKAGES = (
    # what every Debian has
    *("base-files", "base-passwd", "bash", "dash", "coreutils", "libc-bin", "grep", "sed", "mawk", "tar", "gzip"),
    *("findutils", "util-linux", "mount", "procps", "hostname", "iproute2", "kmod", "busybox-static"),
    # what an agent meets: logins with sessions, services of a user, permission to let them linger
    *("systemd", "systemd-sysv", "libpam-systemd", "libpam-modules", "libpam-runtime", "dbus", "dbus-user-session"),
    *("polkitd", "openssh-server", "openssh-sftp-server"),
    # what the agent and its runtimes need
    *("python3", "libstdc++6", "libgcc-s1"),
    "linux-image-cloud-arm64",
)
# Debian of 2023 on: /bin, /lib and /sbin are links into /usr. The hook runs before anything is unpacked.
_MERGED_USR = 'for name in bin lib sbin; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done'
_NOT_NEEDED = (
    *("boot", "dev", "usr/lib/modules", "usr/lib/udev", "usr/lib/klibc", "usr/share/initramfs-tools"),
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion"),
    *("var/cache/apt", "var/lib/apt", "var/run", "var/lock", "usr/lib/python3.11/ensurepip"),
)
_LINKS = (("usr/bin/awk", "mawk"), ("var/run", "/run"), ("var/lock", "/run/lock"))
_USERS = (
    "sshd:*:105:65534::/run/sshd:/usr/sbin/nologin",
    "messagebus:*:106:106::/nonexistent:/usr/sbin/nologin",
    "polkitd:*:107:107::/nonexistent:/usr/sbin/nologin",
    f"{USER}:*:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash",
)
_GROUPS = ("messagebus:x:106:", "polkitd:x:107:", "systemd-journal:x:108:", f"{USER}:x:{USER_ID}:")
_USER_GROUPS = ("adm", "audio", "dialout", "plugdev", "video")
# Units without a purpose here that would take seconds of emulation, or run in the middle of a measurement.
_MASKED = (
    *("getty.target", "systemd-udevd.service", "systemd-udev-trigger.service", "kmod-static-nodes.service"),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-sysusers.service"),
    *(
        "systemd-firstboot.service",
        "systemd-initctl.socket",
        "modprobe@.service",
        "systemd-machine-id-commit.service",
        "systemd-modules-load.service",
    ),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-repart.service", "systemd-pcrphase.service"),
    *("systemd-pcrphase-sysinit.service", "systemd-random-seed.service", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount"),
    *("systemd-journal-flush.service", "systemd-tmpfiles-clean.timer", "systemd-tmpfiles-setup-dev.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"),
    *("dpkg-db-backup.timer", "systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
)


@dataclass(frozen=True)
class Keys:
    """What SSH needs, as text.

    Args:
        host_private: Of the guest's server.
        user_public: Of whom it lets in, as `pi` and as root.
    """

    host_private: str
    user_public: str


@dataclass(frozen=True)
class Owner:
    """Who owns a file in the guest, where it is not who owns it here."""

    path: str
    uid: int
    gid: int


def unpack(root: Path, log: Path) -> None:
    """Fetch and unpack the packages.

    Args:
        root: Folder to fill; it must not exist.
        log: Gets what mmdebstrap says.

    Raises:
        LinkError: a package cannot be fetched.
    """
    command = ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", "--mode=chrootless"]
    command += ["--skip=check/chrootless", f"--include={','.join(PACKAGES)}", f"--setup-hook={_MERGED_USR}"]
    with open(log, "wb") as output:
        ended = subprocess.run([*command, SUITE, str(root)], stdout=output, stderr=output, check=False)
    if ended.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("E: ")]
        raise LinkError(
            f"Debian's packages for ARM64 are required. Received from mmdebstrap: {lines[0] if lines else 'nothing'}",
            "They are fetched once; a mirror of Debian must be reachable that once.",
        )


def configure(root: Path, guest: Path, keys: Keys) -> None:
    """Do what the packages' scripts would have done, and take away what nobody needs.

    Args:
        root: That `unpack` filled.
        guest: Files that stand in the guest as they are, as a tree.
        keys: Of the SSH server and its only user.
    """
    for name in _NOT_NEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
    shutil.copytree(guest, root, dirs_exist_ok=True)
    for name, lines in (("passwd", _USERS), ("group", _GROUPS)):
        master = (root / f"usr/share/base-passwd/{name}.master").read_text()
        (root / "etc" / name).write_text("\n".join([*map(with_user, master.splitlines()), *lines, ""]))
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    for name, leads_to in _LINKS:
        (root / name).symlink_to(leads_to)
    for name in ("dev", "proc", "sys", "run", "mnt", "tmp", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    _write_keys(root, keys)
    _choose_units(root / "etc/systemd/system")


def with_user(line: str) -> str:
    """A line of /etc/group with the user in it, where that group is one of the user's."""
    return line + USER if line.split(":")[0] in _USER_GROUPS and line.endswith(":") else line


def _write_keys(root: Path, keys: Keys) -> None:
    host_key = root / "etc/ssh/host_key"
    host_key.touch(mode=0o600)
    host_key.write_text(keys.host_private)
    for home in (root / "root", root / "home" / USER):
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        (home / ".ssh/authorized_keys").write_text(keys.user_public)


def _choose_units(units: Path) -> None:
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")


def compile_python(root: Path) -> bool:
    """Byte-compile the guest's Python here, without which it starts several times slower under emulation.

    Returns:
        False where this computer has no Python of the guest's version, so that nothing was compiled.
    """
    name = "python{}.{}".format(*PYTHON)
    program = sys.executable if sys.version_info[:2] == PYTHON else shutil.which(name)
    if program is None:
        return False
    folders = [str(root / "usr/lib" / name), str(root / "usr/lib/python3")]
    options = ["-q", "-j", "0", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    # Files that cannot be compiled are templates and tests of broken syntax.
    subprocess.run([program, "-I", "-m", "compileall", *options, *folders], capture_output=True, check=False)
    return True


def owners(root: Path) -> Iterator[Owner]:
    """Files whose owner here is not their owner there: `pi` has a home folder, all else is root's."""
    home = root / "home" / USER
    for path in [root, *root.rglob("*")]:
        uid = gid = USER_ID if path.is_relative_to(home) else 0
        found = path.lstat()
        if (found.st_uid, found.st_gid) != (uid, gid):
            yield Owner(f"/{path.relative_to(root)}", uid, gid)
