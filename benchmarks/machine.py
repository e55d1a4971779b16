"""Measurements of this machine, and of the time and memory that a process takes."""

import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.benchmark import Timer

SIDE = 2048  # of the matrices whose product is timed

Row = dict[str, Any]  # a line of a table, by column


def print_table(title: str, rows: list[Row]) -> None:
    print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}", flush=True)


def describe(device: torch.device) -> str:
    """Names the processor or GPU, the number of threads and PyTorch's version."""
    name = platform.processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif sys.platform == "linux":
        name = " ".join(re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[:1])
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def seconds(work: Callable[[], object]) -> float:
    """Returns the median wall time of a call on all threads, after a warm-up; waits for the GPU."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=0.5).median


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the floating-point operations per second of a product of two large square matrices."""
    square = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    return 2 * SIDE**3 / seconds(lambda: square @ square)


def run(*arguments: str | Path) -> tuple[str, float, float]:
    """Runs a Python command of this project, such as run("-m", "preprocess", ...), on Linux or macOS.

    Returns what it printed, its wall time in seconds, and the peak memory in MiB of the largest child process so far. A
    child starts with the memory of its parent, so the peak is only right if it exceeds this process's own memory.
    """
    start = time.perf_counter()
    process = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return process.stdout, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit


@contextmanager
def busy_core() -> Iterator[None]:
    """Keeps one core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
