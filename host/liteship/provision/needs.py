"""What the shared objects of every runtime need of a target: the pinned data of runtimes/needs.json.

`requirements/needs.py` makes that file from the assembled site folders whenever the locks change. The digest of the
shared objects ties both together: bytes that are the same need the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

# Where a version of each prefix comes from.
LIBRARIES = {"GLIBC": "glibc", "GLIBCXX": "libstdc++", "CXXABI": "libstdc++", "GCC": "libgcc"}


@dataclass(frozen=True)
class Needs:
    """Of one site folder.

    Args:
        symbols: Highest symbol version by prefix that a shared object needs of the system's libraries, for example
            {"GLIBC": "2.34", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "4.5.0"}.
        objects_sha256: Of the names and digests of its shared objects, see `objects_digest`.
    """

    symbols: Mapping[str, str]
    objects_sha256: str


@dataclass(frozen=True)
class Missing:
    """A version that a runtime needs and the target does not offer.

    Args:
        prefix: "GLIBCXX".
        required: The version.
        received: The highest one of the target; None where the library is not there.
    """

    prefix: str
    required: str
    received: str | None

    def describe(self, runtime: str) -> str:
        """One line for messages."""
        library = LIBRARIES[self.prefix]
        received = self.received or f"no {library}"
        return f"{self.prefix} {self.required} is required ({library}) by {runtime}. Received: {received}"


def runtime_data() -> Traversable:
    """The folder of the locks and of needs.json."""
    return resources.files("liteship").joinpath("runtimes")


def read_needs(lock: str, machine: str) -> Needs:
    """The pinned needs of a site folder.

    Args:
        lock: Name of a lock without its ending, "ai-edge-litert-2.3.0-cp311".
        machine: "aarch64" or "x86_64".

    Raises:
        KeyError: the lock is not in the data, which `make lock` would have put there.
    """
    pinned = json.loads(runtime_data().joinpath("needs.json").read_text())[lock][machine]
    return Needs(pinned["symbols"], pinned["objects_sha256"])


def missing_symbols(needs: Mapping[str, str], provided: Mapping[str, str]) -> list[Missing]:
    """What is missing, at most one version of each library.

    Args:
        needs: Version by prefix, of a runtime.
        provided: Version by prefix, of a target.
    """
    missing: dict[str, Missing] = {}
    for prefix in LIBRARIES:
        if prefix in needs and version_numbers(provided.get(prefix, "0")) < version_numbers(needs[prefix]):
            missing.setdefault(LIBRARIES[prefix], Missing(prefix, needs[prefix], provided.get(prefix)))
    return list(missing.values())


def version_numbers(version: str) -> tuple[int, ...]:
    """For comparisons: "3.4.30" is (3, 4, 30)."""
    return tuple(int(part) for part in version.split("."))


def is_shared_object(name: str) -> bool:
    """Is a file of that name or path one: "libstdc++.so.6", "cv2.abi3.so"?"""
    file = name.rpartition("/")[2]
    return file.endswith(".so") or ".so." in file


def objects_digest(listing: Mapping[str, str]) -> str:
    """sha256 that tells whether the shared objects of two site folders are the same.

    Args:
        listing: sha256 by path of every file of a site folder.
    """
    lines = [f"{sha256}  {path}\n" for path, sha256 in sorted(listing.items()) if is_shared_object(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
