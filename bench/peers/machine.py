# SPDX-License-Identifier: Apache-2.0
"""What machine this is, and how busy others keep it. A measurement on a busy machine is none: two threads that share
their cores with a compiler have been seen 50 times slower."""

import os
import pathlib
import platform
import time

TICK = os.sysconf("SC_CLK_TCK")


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def cpu_features():
    text = pathlib.Path("/proc/cpuinfo").read_text().split()
    return [flag for flag in ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
            if flag in text]


def describe():
    return {"cpu": cpu_model(), "features": cpu_features(), "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(), "python": platform.python_version()}


def load_average():
    return os.getloadavg()[0]


def busy_ticks(stat_text):
    """All but idle and waiting for a disk, of /proc/stat's first line. Time stolen by the host counts as busy."""
    fields = [int(field) for field in stat_text.split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, irq, soft_irq, steal = fields
    return user + nice + system + irq + soft_irq + steal


def process_ticks(pid):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:  # it has ended
        return 0
    return int(fields[11]) + int(fields[12])


def foreign_cores(before, after):
    """Cores that others kept busy between two snapshots (seconds, ticks of all, ticks of our own)."""
    seconds, everybody, own = (after[i] - before[i] for i in range(3))
    return max(0.0, (everybody - own) / TICK / max(seconds, 1e-9))


class LoadWatch:
    """Others than this process and `pids`, since it was made."""

    def __init__(self, pids=()):
        self.pids = [*pids, os.getpid()]
        self.start = self.snapshot()

    def snapshot(self):
        everybody = busy_ticks(pathlib.Path("/proc/stat").read_text())
        return time.monotonic(), everybody, sum(map(process_ticks, self.pids))

    def foreign_cores(self):
        return foreign_cores(self.start, self.snapshot())
