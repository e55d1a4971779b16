"""How many threads compute, how they wait, and where they take memory from.

To be imported before PyTorch, whose OpenMP reads its settings once.

By default the threads of OpenMP spin while they wait for each other, which is slow where another program keeps a core
busy or a container may use fewer cores than it sees. The renderer with two threads on two cores, in ms a frame, quiet
and with one core busy: spinning 37 and 1154, not spinning 38 to 116 and 63, spinning for a moment 42 and 75.
A user's own OMP_* settings are kept.
"""

import contextlib
import ctypes
import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
M_ARENA_MAX = -8  # name and number of glibc's <malloc.h>


def available_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Cores that the control group may use, as docker --cpus sets it; infinite if there is no limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()  # "200000 100000", or "max 100000"
        return float(quota.replace("max", "inf")) / float(period)
    except (OSError, ValueError):  # no control groups, or those of version 1
        return math.inf


os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # of GNU's OpenMP, about 10 microseconds
with contextlib.suppress(OSError, AttributeError):  # other systems have other allocators
    ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)  # else each thread keeps what it has freed for itself
