"""Radxa ROCK 5B (RK3588): four slow and four fast cores, whose two clock domains are binned a little apart."""

from machines import ARM_STATUS, SWAPS, VMSTAT, arm_cpuinfo, meminfo, policy, proc_stat, process

_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_ZONES = ("soc", "bigcore0", "bigcore1", "littlecore", "center", "gpu", "npu")
_COOLERS = ("cpufreq-cpu0", "cpufreq-cpu4", "cpufreq-cpu6", "devfreq-fb000000.gpu", "pwm-fan")
_CAPACITIES = (530, 530, 530, 530, 1024, 1024, 1003, 1003)

FILES = {
    "proc/device-tree/model": "Radxa ROCK 5B\0",
    "proc/cpuinfo": arm_cpuinfo(["0xd05"] * 4 + ["0xd0b"] * 4, _FEATURES, "Serial\t\t: 6f1e0a1b2c3d4e5f\n"),
    "proc/meminfo": meminfo(16_204_788, 15_012_340, 0),
    "proc/vmstat": VMSTAT.format(0),
    "proc/stat": proc_stat(8, 10_000),
    "proc/swaps": SWAPS,
    "proc/self/status": ARM_STATUS.format("0-7"),
    "proc/sys/kernel/osrelease": "6.1.84-8-rk2410\n",
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    **{f"sys/class/thermal/thermal_zone{i}/type": f"{name}-thermal\n" for i, name in enumerate(_ZONES)},
    **{f"sys/class/thermal/thermal_zone{i}/temp": f"{41_615 + 923 * i}\n" for i in range(len(_ZONES))},
    **{f"sys/class/thermal/cooling_device{i}/type": f"{name}\n" for i, name in enumerate(_COOLERS)},
    **{f"sys/class/thermal/cooling_device{i}/cur_state": "0\n" for i in range(4)},
    "sys/class/thermal/cooling_device4/cur_state": "3\n",
    **{f"sys/devices/system/cpu/cpu{i}/cpu_capacity": f"{capacity}\n" for i, capacity in enumerate(_CAPACITIES)},
    **policy(range(0, 4), 1_800_000, 1_800_000, "ondemand"),
    **policy(range(4, 6), 2_352_000, 2_352_000, "ondemand"),
    **policy(range(6, 8), 408_000, 2_304_000, "performance"),
    **process(1, "systemd", 120),
}
