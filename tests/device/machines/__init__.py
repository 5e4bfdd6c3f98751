"""Recorded machines: the files of /proc, /sys and the firmware's answers that liteship reads, written below a folder.

    root = build(tmp_path, raspberry_pi_5.FILES)
    Sensors(root)

A test changes a machine by writing, removing or adding files below its root.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ARM_STATUS = "Name:\tpython3\nVmHWM:\t   24064 kB\nRssAnon:\t    9216 kB\nCpus_allowed:\tf\nCpus_allowed_list:\t{}\n"


def build(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a folder, which becomes the machine's root, and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def arm_cpuinfo(parts: list[str], features: str, tail: str = "") -> str:
    """/proc/cpuinfo of an arm64 kernel with one part number per CPU."""
    blocks = [
        f"processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {part}\nCPU revision\t: 1\n\n"
        for index, part in enumerate(parts)
    ]
    return "".join(blocks) + tail


def policy(cpus: range, khz: int, max_khz: int, governor: str) -> dict[str, str]:
    """One clock domain: its own folder, and what each of its CPUs shows of it."""
    content = {
        "related_cpus": " ".join(map(str, cpus)) + "\n",
        "scaling_cur_freq": f"{khz}\n",
        "cpuinfo_max_freq": f"{max_khz}\n",
        "scaling_governor": f"{governor}\n",
    }
    folders = [f"cpufreq/policy{cpus[0]}", *(f"cpu{cpu}/cpufreq" for cpu in cpus)]
    return {f"sys/devices/system/cpu/{folder}/{name}": text for folder in folders for name, text in content.items()}


def meminfo(total_kb: int, available_kb: int, swap_kb: int) -> str:
    """The lines of /proc/meminfo around those that matter."""
    return (
        f"MemTotal:       {total_kb:8} kB\nMemFree:        {available_kb // 2:8} kB\n"
        f"MemAvailable:   {available_kb:8} kB\n"
        f"Buffers:           41232 kB\nCached:           923412 kB\nSwapCached:            0 kB\n"
        f"SwapTotal:      {swap_kb:8} kB\nSwapFree:       {swap_kb // 2:8} kB\n"
    )


def proc_stat(cpus: int, busy_ticks: int, idle_ticks: int = 900_000) -> str:
    """/proc/stat whose first line sums up to `busy_ticks` of work: 70 user, 20 system, 5 irq and softirq, 5 steal."""
    user, system, irq, steal = (busy_ticks * share // 100 for share in (70, 20, 5, 5))
    line = f"{user} 0 {system} {idle_ticks} 1234 {irq - irq // 2} {irq // 2} {steal} 0 0"
    return f"cpu  {line}\n" + "".join(f"cpu{index} {line}\n" for index in range(cpus)) + "intr 1 2 3\nctxt 99\n"


def process(pid: int, name: str, ticks: int) -> dict[str, str]:
    """A process that has used so many ticks of CPU time, a third of them in the kernel."""
    head = f"{pid} ({name}) S 1 {pid} {pid} 0 -1 4194560 1519 0 3 0"
    tail = "0 0 20 0 1 0 1203 10514432 1820 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0"
    return {f"proc/{pid}/stat": f"{head} {ticks - ticks // 3} {ticks // 3} {tail}\n"}


VMSTAT = (
    "nr_free_pages 114512\nnr_zone_inactive_anon 2\npgpgin 812345\npgpgout 91234\npswpin {}\npswpout 40\npgfault 99\n"
)
SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
