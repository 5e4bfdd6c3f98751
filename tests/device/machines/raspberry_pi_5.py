"""Raspberry Pi 5, 8 GB, Raspberry Pi OS trixie, with the active cooler; swaps to zram."""

from machines import ARM_STATUS, SWAPS, VMSTAT, arm_cpuinfo, meminfo, policy, proc_stat, process

_MODEL = "Raspberry Pi 5 Model B Rev 1.0"
_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

FILES = {
    "firmware/measure_clock_arm": "frequency(0)=2400033792\n",
    "firmware/get_throttled": "throttled=0x0\n",
    "proc/device-tree/model": _MODEL + "\0",
    "proc/cpuinfo": arm_cpuinfo(
        ["0xd0b"] * 4, _FEATURES, f"Revision\t: d04170\nSerial\t\t: 4e1c0f00a1b2c3d4\nModel\t\t: {_MODEL}\n"
    ),
    "proc/meminfo": meminfo(8_256_128, 7_301_920, 2_097_136),
    "proc/vmstat": VMSTAT.format(0),
    "proc/stat": proc_stat(4, 20_000),
    "proc/swaps": SWAPS + "/dev/zram0                              partition\t2097136\t\t0\t\t100\n"
    "/var/swap                               file\t\t524272\t\t0\t\t-2\n",
    "proc/self/status": ARM_STATUS.format("0-3"),
    "proc/sys/kernel/osrelease": "6.12.47+rpt-rpi-2712\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\n',
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "52150\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "1\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "52150\n",
    "sys/class/hwmon/hwmon1/name": "rp1_adc\n",
    "sys/class/hwmon/hwmon1/in1_input": "2517\n",
    "sys/class/hwmon/hwmon2/name": "pwmfan\n",
    "sys/class/hwmon/hwmon2/fan1_input": "2713\n",
    "sys/class/hwmon/hwmon3/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon3/in0_lcrit_alarm": "0\n",
    **policy(range(4), 2_400_000, 2_400_000, "ondemand"),
    **process(1, "systemd", 310),
    **process(905, "wayvnc", 44),
}
