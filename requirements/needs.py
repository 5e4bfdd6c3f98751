"""Read which symbol versions the shared objects of every runtime need, and pin them in runtimes/needs.json.

Part of `make lock`, which runs it after the locks are made. Every site folder is assembled as for a board, so this
takes two minutes and needs a package index. What libraries in the folder provide to each other does not count.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from liteship.provision import RUNTIMES, Interpreter, Runtime
from liteship.provision.needs import LIBRARIES, is_shared_object, objects_digest, version_numbers
from liteship.provision.pack import assemble_site

MACHINES = ("aarch64", "x86_64")
DATA = Path(__file__).parents[1] / "host/liteship/runtimes"
# What every system with a glibc and Python has; zlib's newest version name dates from 2010.
SYSTEM_LIBRARIES = re.compile(r"(ld-linux-[a-z0-9-]+|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+|z))\.so\.[0-9]")


def main() -> None:
    """Write needs.json."""
    pinned: dict[str, dict[str, object]] = {}
    for runtime, version in locked_runtimes():
        for machine in MACHINES:
            interpreter = Interpreter(version, machine, 64, None, "", {})
            name = runtime.lock_name(interpreter.tag)
            with tempfile.TemporaryDirectory(prefix="liteship-needs-") as work:
                site = Path(work, "site")
                listing = assemble_site(runtime, interpreter, site, Path(work))
                needs = {"symbols": needed_symbols(site), "objects_sha256": objects_digest(listing)}
            pinned.setdefault(name, {})[machine] = needs
            print(f"{name} {machine}: {needs['symbols']}", file=sys.stderr)
    (DATA / "needs.json").write_text(json.dumps(pinned, indent=1) + "\n")


def locked_runtimes() -> Iterator[tuple[Runtime, tuple[int, int]]]:
    """Each runtime with each Python that it has a lock for."""
    for runtime in RUNTIMES:
        for minor in range(9, 100):
            if (DATA / f"{runtime.lock_name(f'cp3{minor}')}.txt").is_file():
                yield runtime, (3, minor)


def needed_symbols(site: Path) -> dict[str, str]:
    """Highest version by prefix that the shared objects of a folder need of the system's libraries.

    Raises:
        SystemExit: one needs a library that is neither in the folder nor on every system.
    """
    objects = [path for path in sorted(site.rglob("*")) if path.is_file() and is_shared_object(path.name)]
    own = {path.name for path in objects}
    highest: dict[str, str] = {}
    for path in objects:
        for library, version in needed_versions(path):
            if library in own:
                continue
            if not SYSTEM_LIBRARIES.fullmatch(library):
                sys.exit(f"error: {path.relative_to(site)}: {library} is required. Received: a folder without it")
            prefix, _, number = (version or "").rpartition("_")
            if prefix in LIBRARIES and re.fullmatch(r"[0-9.]+", number):
                highest[prefix] = max(highest.get(prefix, "0"), number, key=version_numbers)
    return {prefix: highest[prefix] for prefix in LIBRARIES if prefix in highest}


def needed_versions(path: Path) -> Iterator[tuple[str, str | None]]:
    """Name of each library that a shared object needs, with None, and with each version name that it needs of it."""
    with open(path, "rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, DynamicSection):
                for tag in section.iter_tags("DT_NEEDED"):
                    yield tag.needed, None
            if isinstance(section, GNUVerNeedSection):
                for library, versions in section.iter_versions():
                    for version in versions:
                        yield library.name, version.name


if __name__ == "__main__":
    main()
