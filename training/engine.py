"""One training process: device, number format, communication with others (torchrun), optimiser steps, averaging.

With several processes, PyTorch's DistributedDataParallel averages the gradients. On GPUs, SyncBatchNorm computes batch
statistics over the batch of all processes. PyTorch has no SyncBatchNorm for CPUs: there each process uses the
statistics of its own share, and the running statistics are those of the main process.
"""

import gc
import math
import os
import signal
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # before init_process_group: its default arguments would keep that group alive
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from runtime.command_line import SettingError
from runtime.device import computes_in_bf16, pick_device
from training.config import TrainConfig

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # training finishes its step, saves and exits


class Engine:
    """This training process, in any precision, among any number of processes.

    Raises:
        UserError: the device is not usable, or the batch cannot be split evenly.
    """

    def __init__(self, config: TrainConfig):
        torch.manual_seed(config.seed)  # before the networks are created
        self.config = config
        self.deadline = math.inf if config.minutes is None else time.monotonic() + 60 * config.minutes
        self.signal = 0  # number of the signal that was received
        self.rank = int(os.environ.get("RANK", "0"))
        self.is_main = self.rank == 0
        self.num_processes = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = pick_device(config.device, int(os.environ.get("LOCAL_RANK", "0")))
        num_parts = self.num_processes * config.accumulate
        self.part_size, remainder = divmod(config.batch, num_parts)
        if remainder or self.part_size < 2:  # a single sample has no batch statistics
            raise SettingError(
                "batch", f"{config.batch} must be a multiple of processes x accumulate ({num_parts}), at least twice it"
            )
        self.half = config.precision == "bf16" or (config.precision == "auto" and computes_in_bf16(self.device))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.benchmark = True  # every step has the same shapes
            torch.backends.cudnn.allow_tf32 = config.precision != "fp32"
            torch.backends.cuda.matmul.allow_tf32 = config.precision != "fp32"
        if self.num_processes > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")

    # Training steps

    def autocast(self) -> torch.autocast:
        """Context for forward passes in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def parallel(self, module: nn.Module, partly_trained: bool = False) -> nn.Module:
        """Returns the module to call in training steps, which averages the gradients of all processes.

        It shares its weights with `module`. Its outputs must enter the loss or be detached. `partly_trained`: in some
        steps, some of its parameters get no gradient.
        """
        if self.num_processes == 1:
            return module
        if self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(module)  # in place
        return DistributedDataParallel(module, find_unused_parameters=partly_trained)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of one of the batch's `accumulate` parts."""
        (loss / self.config.accumulate).backward()

    def update(self, optimiser: Optimizer, step: int) -> dict[str, Tensor]:
        """Clips the gradients of each network, takes the optimiser's step and clears the gradients.

        Returns the gradients' norms before clipping, by name; 0 for a network that is not trained in this step.
        """
        norms = {}
        for group in optimiser.param_groups:
            group["lr"] = self.config.learning_rate_at(step)
            norm = nn.utils.clip_grad_norm_(group["params"], self.config.clip_norm or math.inf)
            norms[f"{group['name']}_gradient_norm"] = norm.to(self.device)
        optimiser.step()
        optimiser.zero_grad()
        return norms

    # Other processes

    def from_main(self, value: Any) -> Any:
        """Returns the main process's value on all processes, without waiting for a GPU."""
        values = [value]
        if self.num_processes > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def mean_over_processes(self, values: Tensor) -> Tensor:
        if self.num_processes > 1:
            dist.all_reduce(values)
        return values / self.num_processes

    def close(self) -> None:
        """Ends Gloo's threads, which could crash the process when it exits. Nothing else may hold the replicas then."""
        if self.num_processes > 1:
            gc.collect()
            dist.destroy_process_group()

    def catch_signals(self) -> None:
        """Notes the first signal, so that the step can end; a second one ends the process at once."""

        def note(number: int, _: object) -> None:
            self.signal = number
            signal.signal(number, signal.SIG_DFL)

        for number in SIGNALS:
            signal.signal(number, note)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Updates the exponential moving average of a network's weights and batch statistics.

    Statistics are averaged too, because the network's own belong to its latest weights.
    """
    current = network.state_dict()
    for name, mean in average.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(current[name], 1 - decay)
        else:
            mean.copy_(current[name])
