"""Can a latency be true? The arithmetic of a model as a share of what its cores can do at most.

A float32 model of some size reaches a tenth of the peak of a core or more where it is run well. Below that something
else than arithmetic took the time, and what is known of the run says what. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liteship.stats import median
from liteship_agent.report import UNSTABLE, Block

LOWEST_PEAK_RATIO = 0.1
"""Below this share of the peak a latency asks for an explanation."""

_ARM = 0x41
_ARM_CORES = {
    0xD03: ("Cortex-A53", 4),
    0xD05: ("Cortex-A55", 4),
    0xD07: ("Cortex-A57", 4),
    0xD08: ("Cortex-A72", 4),
    0xD09: ("Cortex-A73", 4),
    0xD0B: ("Cortex-A76", 8),
    0xD0C: ("Neoverse N1", 8),
    0xD0D: ("Cortex-A77", 8),
    0xD41: ("Cortex-A78", 8),
    0xD44: ("Cortex-X1", 16),
    0xD4B: ("Cortex-A78C", 8),
    0xD4C: ("Cortex-X1C", 16),
}
# Below this the cost of starting each operator weighs more than its arithmetic: 60 operators at some microseconds.
_SMALL_MULTIPLY_ADDS = 5_000_000
_NEAR_ONE_CORE = 1.2
_FULL_CLOCK_RATIO = 0.95


@dataclass(frozen=True)
class Core:
    """One kind of processor core.

    Args:
        name: For people.
        multiply_adds_per_cycle: Of float32, at most.
        max_hz: Highest clock, None where it is not known.
    """

    name: str
    multiply_adds_per_cycle: int
    max_hz: float | None


@dataclass(frozen=True)
class Run:
    """What is known of how one case was run.

    Args:
        multiply_adds: Of one inference.
        median_ns: Of an invocation.
        threads, cpus: That were set.
        cores_used: CPU time of the process per wall time of its invocations.
        delegated_nodes: Run by XNNPACK; None where the runtime does not tell.
        validity: Of the case.
        clock_hz: While it ran, None where it is not known.
        runtime: Distribution that ran it.
        integer: Whether its arithmetic is of integers.
        emulated: Whether the machine is.
    """

    multiply_adds: int
    median_ns: float
    threads: int
    cpus: tuple[int, ...]
    cores_used: float
    delegated_nodes: int | None
    validity: str
    clock_hz: float | None
    runtime: str
    integer: bool
    emulated: bool

    @property
    def cores(self) -> int:
        """How many cores its threads can use."""
        return min(self.threads, len(self.cpus) or self.threads)


@dataclass(frozen=True)
class Plausibility:
    """How far a case is from the peak of its cores.

    Args:
        peak_ratio: Multiply-adds per second, of the most that its cores can do in float32; None where the core or its
            clock is not known. Integer and sparse arithmetic may exceed 1.
        core: Name of the core, None likewise.
        clock_hz: That the peak is of.
        reasons: Why the ratio is below `LOWEST_PEAK_RATIO`, or why there is none.
    """

    peak_ratio: float | None
    core: str | None
    clock_hz: float | None
    reasons: tuple[str, ...]

    @property
    def low(self) -> bool:
        """Whether the ratio asks for an explanation."""
        return self.peak_ratio is not None and self.peak_ratio < LOWEST_PEAK_RATIO


def judge_plausibility(run: Run, environment: Mapping[str, Any]) -> Plausibility:
    """How far a case is from the peak of its cores, and why.

    Args:
        run: How the case was run.
        environment: Of the report.
    """
    core = find_core(run.cpus, environment)
    if core is None:
        return Plausibility(None, None, None, ("multiply-adds per cycle of this core are not known",))
    clock_hz = run.clock_hz or core.max_hz or _nominal_hz(environment)
    if clock_hz is None:
        return Plausibility(None, core.name, None, ("its clock is not known",))
    peak_per_second = core.multiply_adds_per_cycle * clock_hz * run.cores
    ratio = run.multiply_adds / (run.median_ns / 1e9) / peak_per_second
    reasons = _reasons(run, core, environment) if ratio < LOWEST_PEAK_RATIO else ()
    return Plausibility(ratio, core.name, clock_hz, reasons)


def find_core(cpus: Sequence[int], environment: Mapping[str, Any]) -> Core | None:
    """The kind of core that CPUs are of, None where its arithmetic is not known.

    Source of the multiply-adds per cycle: throughput of FMLA on four float32 values (ASIMD floating-point multiply
    accumulate, Q form) in Arm's Software Optimization Guides, one per cycle up to Cortex-A73 (Cortex-A53 and A55: two
    pipes of half the width), two from Cortex-A76 on, four on Cortex-X1; Intel 64 and IA-32 Architectures Optimization
    Reference Manual: two fused multiply-add units of 16 (AVX-512) or 8 (AVX2 with FMA) values. Processors with one
    unit for AVX-512 reach half of that.
    """
    kinds: Sequence[Mapping[str, Any]] = environment.get("cpu_types") or ()
    kind = next((kind for kind in kinds if set(cpus) & set(kind["cpus"])), {})
    max_hz = kind.get("max_hz")
    flags = set(environment.get("cpu_flags") or ())
    if "avx512f" in flags:
        return Core("an x86 core with AVX-512", 32, max_hz)
    if {"avx2", "fma"} <= flags:
        return Core("an x86 core with AVX2", 16, max_hz)
    if kind.get("implementer") != _ARM:
        return None
    name, multiply_adds = _ARM_CORES.get(kind.get("part", 0), (None, 0))
    return None if name is None else Core(f"a {name}", multiply_adds, max_hz)


def measured_clock_hz(blocks: Sequence[Block]) -> float | None:
    """Median clock of the samples in the timed parts of blocks: the firmware's, else the kernel's, else None."""
    samples = [
        sample
        for block in blocks
        for sample in block.samples
        if block.timed_from_ns <= sample.at_ns <= block.timed_to_ns
    ]
    for clocks in ([s.arm_clock_hz for s in samples], [s.cpufreq_hz for s in samples]):
        known = [clock for clock in clocks if clock]
        if known:
            return median(known)
    return None


def _reasons(run: Run, core: Core, environment: Mapping[str, Any]) -> tuple[str, ...]:
    """What may have taken the time."""
    slow = bool(run.clock_hz and core.max_hz and run.clock_hz < _FULL_CLOCK_RATIO * core.max_hz)
    governor = environment.get("governor") or "unknown"
    causes = {
        "the machine is emulated": run.emulated,
        f"its clock was {_megahertz(run.clock_hz)} of {_megahertz(core.max_hz)} MHz (governor {governor})": slow,
        f"{run.threads} threads are set and {run.cores_used:.1f} cores were used": (
            run.cores > 1 and run.cores_used < _NEAR_ONE_CORE
        ),
        "no node is delegated to XNNPACK": run.delegated_nodes == 0,
        "the runtime does not tell whether XNNPACK runs it": run.delegated_nodes is None,
        f"{run.runtime} has no fast kernels for integers": run.integer and run.runtime == "tflite-runtime",
        "it was disturbed while it was timed": run.validity == UNSTABLE,
        "it is so small that starting its operators takes longer than their arithmetic": (
            run.multiply_adds < _SMALL_MULTIPLY_ADDS
        ),
    }
    return tuple(text for text, holds in causes.items() if holds) or ("nothing that is known here explains it",)


def _nominal_hz(environment: Mapping[str, Any]) -> float | None:
    """The clock in /proc/cpuinfo, which x86 has."""
    megahertz = environment.get("cpu_mhz")
    return float(megahertz) * 1e6 if megahertz else None


def _megahertz(clock_hz: float | None) -> str:
    return "an unknown number" if clock_hz is None else f"{clock_hz / 1e6:.0f}"
