"""What a machine can do, and what a process takes of it: shared by the benchmarks."""

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

SIDE = 2048  # of the matrices whose product tells the speed of a machine


def describe(device: torch.device) -> str:
    """Processor or GPU, number of cores, threads, versions."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif cpu_info.exists():
        lines = dict(line.split(":", 1) for line in cpu_info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        name = {key.strip(): value.strip() for key, value in lines.items()}.get("model name", name)
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def seconds(work: Callable[[], object]) -> float:
    """Median wall time of a call on all threads, after a warm-up; waits for the GPU."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=0.5).median


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a product of two large square matrices."""
    square = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    return 2 * SIDE**3 / seconds(lambda: square @ square)


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    output: str
    """What it printed."""
    seconds: float
    """Wall time."""
    busy_cores: float
    """Processor time by wall time."""
    peak_memory: float
    """MiB of its largest process."""


def run(*arguments: str | Path) -> Usage:
    """Runs a Python command of this project, such as run("-m", "preprocess", ...), on Linux or macOS.

    A process begins with the memory of its parent, so that the peak is right only above this process's own memory.
    """
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{command} failed:\n{output}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Usage(output, wall, (usage.ru_utime + usage.ru_stime) / wall, usage.ru_maxrss / unit)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keeps one core busy with another process."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin() -> None:
    while True:
        pass
