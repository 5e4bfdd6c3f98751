"""The runtime that fits a target.

A runtime fits when there is a lock for the target's Python, and when the target's C and C++ libraries provide the
symbol versions that its shared objects need. The platform tag of a wheel may ask for more than the wheel needs, and may
hide that it needs more than the tag says; so tags only tell pip which wheel is for which machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from liteship.errors import LinkError, UsageError
from liteship.provision.needs import Missing, missing_symbols, read_needs, runtime_data

AUTO = "auto"
_MACHINES = ("aarch64", "x86_64")
_OTHER = "Name another interpreter of the target as `python`, or another runtime."
# What brings a library that is not there at all.
_PACKAGES = {"GLIBCXX": "libstdc++6", "CXXABI": "libstdc++6", "GCC": "libgcc-s1"}


@dataclass(frozen=True)
class Runtime:
    """A runtime that liteship knows.

    Args:
        name, version: Of the distribution.
    """

    name: str
    version: str

    @property
    def requirement(self) -> str:
        """For example "ai-edge-litert==2.3.0"."""
        return f"{self.name}=={self.version}"

    def lock_name(self, tag: str) -> str:
        """Of the lock for a Python, for example "ai-edge-litert-2.3.0-cp311"; there need not be one."""
        return f"{self.name}-{self.version}-{tag}"


# In order of preference.
RUNTIMES = (
    Runtime("ai-edge-litert", "2.3.0"),
    Runtime("ai-edge-litert", "2.1.0"),
    Runtime("tflite-runtime", "2.14.0"),
)


@dataclass(frozen=True)
class Interpreter:
    """The Python of a target, as it tells itself.

    Args:
        version: (major, minor).
        machine: Of its ELF header, "aarch64" under a 64-bit system whatever the kernel says.
        word_bits: 32 or 64.
        soabi: Tag of its extension modules, "cpython-311-aarch64-linux-gnu"; None where it has none.
        libc: For messages, "glibc 2.31"; its highest symbol version may be older.
        symbols: Highest version by prefix that its libraries provide, {"GLIBC": "2.30", "GLIBCXX": "3.4.28"}.
    """

    version: tuple[int, int]
    machine: str
    word_bits: int
    soabi: str | None
    libc: str
    symbols: Mapping[str, str]

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Interpreter:
        """From the answer of the store's `probe`."""
        major, minor = probe["python_version"].split(".")[:2]
        return cls(
            version=(int(major), int(minor)),
            machine=probe["machine"],
            word_bits=probe["word_bits"],
            soabi=probe["soabi"],
            libc=" ".join(probe["libc"] or ("no", "glibc")),
            symbols=probe["symbols"],
        )

    @property
    def tag(self) -> str:
        """For example "cp311"."""
        return f"cp{self.version[0]}{self.version[1]}"

    def describe(self) -> str:
        """For messages."""
        return f"Python {self.version[0]}.{self.version[1]}, {self.word_bits}-bit {self.machine}, {self.libc}"


def named_runtimes(wanted: str) -> list[Runtime]:
    """The runtimes that a name may mean, in order of preference.

    Args:
        wanted: "auto", a name, or name==version; the last part of the version may be left out.

    Raises:
        UsageError: no runtime of that name is known.
    """
    named = [
        runtime
        for runtime in RUNTIMES
        if wanted in (AUTO, runtime.name, runtime.requirement) or runtime.requirement.startswith(f"{wanted}.")
    ]
    if not named:
        known = ", ".join(dict.fromkeys([AUTO, *(r.name for r in RUNTIMES), *(r.requirement for r in RUNTIMES)]))
        raise UsageError(f"A runtime of {known} is required. Received: {wanted}.")
    return named


def choose_runtime(interpreter: Interpreter, wanted: str) -> Runtime:
    """The runtime for a target.

    Args:
        interpreter: Of the target.
        wanted: "auto" (the newest LiteRT that fits, else tflite-runtime), a name, or name==version.

    Raises:
        UsageError: no runtime of that name is known.
        LinkError: none fits the target.
    """
    named = named_runtimes(wanted)
    _require_known_machine(interpreter)
    _require_ordinary_abi(interpreter)
    locked = [runtime for runtime in named if interpreter.tag in _lock_tags(runtime)]
    if not locked:
        offers = "; ".join(f"{_pythons(runtime)} for {runtime.requirement}" for runtime in named)
        raise LinkError(
            f"Another Python is required on the target: {offers}. Received: {interpreter.describe()}.", _OTHER
        )
    reasons: list[tuple[Runtime, list[Missing]]] = []
    for runtime in locked:
        needs = read_needs(runtime.lock_name(interpreter.tag), interpreter.machine)
        missing = missing_symbols(needs.symbols, interpreter.symbols)
        if not missing:
            return runtime
        reasons.append((runtime, missing))
    described = [one.describe(runtime.requirement) for runtime, missing in reasons for one in missing]
    raise LinkError("; ".join(described) + ".", _remedy([one for _, missing in reasons for one in missing]))


def _require_known_machine(interpreter: Interpreter) -> None:
    if interpreter.word_bits != 64 or interpreter.machine not in _MACHINES:
        raise LinkError(
            f"A 64-bit Python for {' or '.join(_MACHINES)} is required on the target. "
            f"Received: {interpreter.describe()}.",
            "Use a 64-bit system, such as Raspberry Pi OS (64-bit), or name another interpreter as `python`.",
        )


def _require_ordinary_abi(interpreter: Interpreter) -> None:
    """Refuse PyPy, free-threaded and debug builds: no wheel is made for them."""
    ordinary = f"cpython-{interpreter.tag.removeprefix('cp')}"
    if not (interpreter.soabi or "").startswith(f"{ordinary}-"):
        raise LinkError(
            f"A Python with the ABI {ordinary} is required on the target. Received: {interpreter.soabi}.", _OTHER
        )


def _remedy(missing: list[Missing]) -> str:
    """What to do about libraries that are not there, or too old."""
    if all(one.received is None and one.prefix in _PACKAGES for one in missing):
        packages = {_PACKAGES[one.prefix] for one in missing}
        return f"On the target: sudo apt install {' '.join(sorted(packages))}."
    return f"A newer system on the target brings newer libraries. {_OTHER}"


def _lock_tags(runtime: Runtime) -> list[str]:
    """Of the Pythons that the runtime has a lock for, oldest first."""
    prefix = runtime.lock_name("cp3")
    names = [path.name.removesuffix(".txt") for path in runtime_data().iterdir() if path.name.endswith(".txt")]
    minors = sorted(int(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
    return [f"cp3{minor}" for minor in minors]


def _pythons(runtime: Runtime) -> str:
    return "Python " + ", ".join(f"3.{tag.removeprefix('cp3')}" for tag in _lock_tags(runtime))
