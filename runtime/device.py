"""Devices, their number formats, and memory."""

import sys

import torch

from runtime.command_line import UserError
from runtime.threads import glibc

M_TRIM_THRESHOLD = -1  # constants of glibc's <malloc.h>
M_MMAP_MAX = -4


def pick_device(name: str, local: int | None = None) -> torch.device:
    """Returns the device called `name`.

    Args:
        name: a device of PyTorch; `auto` is a GPU if there is one, else the CPU.
        local: number of the GPU to use for `cuda`, such as the local rank of this process.

    Raises:
        UserError: this machine lacks the device.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda" and local is not None:
        name = f"cuda:{local}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # then PyTorch lists all its devices
        raise UserError(f"device {name}: not usable on this machine; use cpu or auto ({reason})") from None
    return device


def wait(device: torch.device) -> None:
    """Waits until the device has finished all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()  # such CPUs also have AMX


def keep_memory() -> None:
    """Makes this process keep the memory that it frees for later use.

    Otherwise glibc requests the memory of every large tensor from the system again, page by page. On a CPU this takes a
    fifth of the renderer's time with five references, and half of it with 25.
    """
    glibc("mallopt", M_MMAP_MAX, 0)
    glibc("mallopt", M_TRIM_THRESHOLD, 2**31 - 1)


def release_memory() -> None:
    """Returns freed memory to the system: the next stage allocates blocks of other sizes and could not reuse it."""
    glibc("malloc_trim", 0)


def out_of_memory(error: Exception) -> bool:
    """Whether a MemoryError or RuntimeError means that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error)


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process in GiB, on the GPU or else in RAM; 0 if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
