"""Sets the number of OpenMP's threads, how they wait, and where they allocate memory.

Import this before PyTorch, because OpenMP reads its settings only once. A user's own OMP_* settings are kept.

By default OpenMP's threads spin while they wait for each other. This is slow if another program keeps a core busy, or
if a container may use fewer cores than it sees. The renderer with two threads on two cores takes, in ms per frame:

    threads              idle machine    one core busy
    spin                 37              1154
    do not spin          38 to 116       63
    spin for a moment    42              75
"""

import contextlib
import ctypes
import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
M_ARENA_MAX = -8  # constant of glibc's <malloc.h>


def available_cores() -> int:
    """Number of cores that this process may use, given its CPU affinity and its container's quota."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Number of cores that the control group may use, as set by docker --cpus; infinite without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()  # "200000 100000", or "max 100000"
        return float(quota.replace("max", "inf")) / float(period)
    except (OSError, ValueError):  # no control groups, or version 1
        return math.inf


def glibc(name: str, *arguments: int) -> None:
    """Calls a function of the GNU C library; does nothing on systems that have another one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6")[name](*arguments)


os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # for GNU's OpenMP; about 10 microseconds
glibc("mallopt", M_ARENA_MAX, 1)  # else each thread keeps the memory that it frees for itself
