"""Raspberry Pi 4 Model B, 4 GB, Raspberry Pi OS bookworm, without a fan; undervolted once since it booted."""

from machines import ARM_STATUS, SWAPS, VMSTAT, arm_cpuinfo, meminfo, policy, proc_stat, process

_MODEL = "Raspberry Pi 4 Model B Rev 1.5"

FILES = {
    "firmware/measure_clock_arm": "frequency(48)=1500345728\n",
    "firmware/get_throttled": "throttled=0x50000\n",
    "proc/device-tree/model": _MODEL + "\0",
    "proc/cpuinfo": arm_cpuinfo(
        ["0xd08"] * 4,
        "fp asimd evtstrm crc32 cpuid",
        f"Revision\t: c03115\nSerial\t\t: 10000000a1b2c3d4\nModel\t\t: {_MODEL}\n",
    ),
    "proc/meminfo": meminfo(3_884_332, 3_412_004, 102_396),
    "proc/vmstat": VMSTAT.format(17),
    "proc/stat": proc_stat(4, 40_000),
    "proc/swaps": SWAPS + "/var/swap                               file\t\t102396\t\t0\t\t-2\n",
    "proc/self/status": ARM_STATUS.format("0-3"),
    "proc/sys/kernel/osrelease": "6.6.51+rpt-rpi-v8\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n',
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "48312\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
    **policy(range(4), 1_800_000, 1_800_000, "ondemand"),
    **process(1, "systemd", 910),
    **process(412, "(sd-pam) x", 3),
    **process(733, "chromium-browse", 5120),
}
