"""A virtual machine on a server with an x86 processor: no device tree, no sensor, no clock to read."""

from machines import ARM_STATUS, SWAPS, VMSTAT, meminfo, proc_stat, process

_BLOCK = (
    "processor\t: {0}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
    "model name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nstepping\t: 7\ncpu MHz\t\t: 2200.192\ncache size\t: 39424 KB\n"
    "flags\t\t: fpu sse sse2 ssse3 fma sse4_1 sse4_2 hypervisor avx avx2 avx512f\nbugs\t\t: spectre_v1\n\n"
)

FILES = {
    "proc/cpuinfo": _BLOCK.format(0) + _BLOCK.format(1),
    "proc/meminfo": meminfo(8_144_380, 7_001_112, 0),
    "proc/vmstat": VMSTAT.format(0),
    "proc/stat": proc_stat(2, 80_000),
    "proc/swaps": SWAPS,
    "proc/self/status": ARM_STATUS.format("0-1"),
    "proc/sys/kernel/osrelease": "6.1.0-28-cloud-amd64\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    **process(1, "systemd", 200),
}
