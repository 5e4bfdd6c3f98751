"""Which operators a TFLite runtime has: can it load a file that needs these?

The table is measured by benchmarks/operator_versions.py, in TensorFlow's numbering of operator versions.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from liteship.errors import UsageError
from liteship_agent.manifest import Operator

CUSTOM_PREFIX = "CUSTOM "
"""How the name of an operator begins that no runtime has of its own."""


@cache
def _operator_versions() -> dict[str, dict[str, int]]:
    """Largest version of every operator by runtime, measured by benchmarks/operator_versions.py."""
    table: dict[str, dict[str, int]] = json.loads(
        resources.files("liteship").joinpath("operator_versions.json").read_text()
    )
    return table


def known_runtimes() -> tuple[str, ...]:
    """All runtimes whose operators are known, as name==version, the newest of a name first."""
    return tuple(sorted(_operator_versions(), key=lambda name: (name.split("==")[0], [-n for n in _version(name)])))


def known_runtime(name: str) -> str:
    """The runtime that a name means.

    Args:
        name: A name ("tflite-runtime": its newest version), or name==version, where the version may be cut short
            ("tflite-runtime==2.14").

    Returns:
        For example "tflite-runtime==2.14.0".

    Raises:
        UsageError: no such runtime is known.
    """
    package, _, version = name.partition("==")
    for known in known_runtimes():
        known_package, _, known_version = known.partition("==")
        if known_package == package and (name == package or f"{known_version}.".startswith(f"{version}.")):
            return known
    raise UsageError(f"A runtime of {', '.join(known_runtimes())} is required. Received: {name}.")


def _version(runtime: str) -> list[int]:
    return [int(part) for part in runtime.partition("==")[2].split(".")]


def missing_operators(operators: tuple[Operator, ...], runtime: str) -> list[str]:
    """What a runtime lacks to load a file.

    Args:
        operators: Of the file.
        runtime: For example "tflite-runtime==2.14.0".

    Returns:
        One text per operator, empty when the file loads: "FULLY_CONNECTED version 12 (the runtime has 10)". Custom
        operators are never there: a runtime gets them from the program that it is built into.
    """
    table = _operator_versions()[runtime]
    return [
        f"{operator.name} (no runtime has custom operators)"
        if operator.name.startswith(CUSTOM_PREFIX)
        else f"{operator.name} version {operator.version} (the runtime has {table.get(operator.name, 'none')})"
        for operator in operators
        if operator.version > table.get(operator.name, 0)
    ]
