"""One process or many (torchrun): who am I, averages over processes, batch statistics over the whole batch.

Gradients are averaged by one all-reduce after the backward pass rather than by DistributedDataParallel: with two
networks, frozen parameters and accumulation the result is the same and there is nothing to configure.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported later, as by optimisers, its functions' defaults would hold the group for ever
from torch import Tensor, nn

from runtime.device import pick_device

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among `size` processes, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(device: str = "auto") -> World:
    """Reads torchrun's environment (none: one process) and opens the process group: NCCL on CUDA, else Gloo.

    Raises:
        UserError: the device isn't there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = pick_device(device, local)  # touches no other process's GPU
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def stop() -> None:
    """Closes the process group: one of Gloo's threads that frees a tensor while Python ends aborts the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_another(error: Exception) -> bool:
    """Whether that came from an exchange with a process that has ended."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def average(tensors: Iterable[Tensor], world: World) -> None:
    """Replaces each tensor by its mean over the processes, in one exchange. In place."""
    tensors = list(tensors)
    if world.size == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world.size
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def from_main(value: Value, world: World) -> Value:
    """The main process's value, on all processes: their machine may not have its files."""
    values = [value]
    if world.size > 1:
        dist.broadcast_object_list(values)
    return values[0]


def copy_from_main(module: nn.Module, world: World) -> None:
    """Gives every process the main process's weights and buffers."""
    for tensor in module.state_dict().values() if world.size > 1 else ():
        dist.broadcast(tensor, src=0)


def any_process(flags: Iterable[bool], world: World) -> list[bool]:
    """Each flag, true on all processes when it is true on one: they stop together. No GPU is waited for."""
    values = torch.tensor([float(flag) for flag in flags])
    average([values], world)
    return values.bool().tolist()


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradients add up likewise."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, *gradients)


def shared_batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The training layer's output (B, C, ...), with statistics over the equally large batches of all processes.

    PyTorch's SyncBatchNorm, which does the same with fewer exchanges, works on GPUs only.
    """
    axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
    processes, wide = dist.get_world_size(), x.float()
    mean = _Sum.apply(wide.mean(axes)) / processes  # (C,)
    centred = wide - mean.view(shape)
    variance = _Sum.apply(centred.square().mean(axes)) / processes  # (C,)
    count = x.numel() // x.shape[1] * processes
    with torch.no_grad():
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum or 0.1)
        norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum or 0.1)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return (centred * scale.view(shape) + norm.bias.view(shape)).to(x.dtype)


def share_batch_norm(module: nn.Module, world: World) -> None:
    """Makes the BatchNorm layers of a module in training normalise over all processes. Weights and their names stay."""
    if world.size == 1:
        return
    if world.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.forward = partial(shared_batch_norm, layer)  # type: ignore[method-assign]
