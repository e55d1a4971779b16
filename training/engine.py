"""What a training step needs beside networks and losses: number format, gradient scaling, clipping, averaging."""

import copy

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from runtime.device import computes_in_bf16
from training import distributed
from training.options import Options


class Engine:
    """Backward passes and optimiser steps, in any precision, on any number of processes."""

    def __init__(self, options: Options) -> None:
        """Raises UserError when the device isn't there."""
        torch.manual_seed(options.seed)  # networks are made next
        self.options = options
        self.world = distributed.start(options.device)
        self.device = self.world.device
        precision = options.precision
        if precision == "auto":
            precision = "bf16" if computes_in_bf16(self.device) else "fp32"
        self.half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every step has the same shapes
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"

    def autocast(self) -> torch.autocast:
        """Context for forward passes in the chosen precision."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def adam(self, module: nn.Module, betas: tuple[float, float] = (0.9, 0.999)) -> Optimizer:
        """Adam over the module's parameters; its learning rate is set at every step."""
        return Adam(module.parameters(), betas=betas, fused=self.device.type == "cuda")

    def compiled(self, module: nn.Module) -> nn.Module:
        """The module, compiled when asked for; weights are shared and keep their names."""
        return torch.compile(module) if self.options.compile else module  # type: ignore[return-value]

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of one of the step's `accumulate` parts."""
        self.scaler.scale(loss / self.options.accumulate).backward()

    def update(self, optimiser: Optimizer, step: int) -> Tensor:
        """Averages the gradients over processes, clips them, steps and clears. Returns the norm before clipping."""
        parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        distributed.average([p.grad for p in parameters], self.world)
        optimiser.param_groups[0]["lr"] = self.options.learning_rate_at(step)
        self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, self.options.clip_norm or float("inf"))
        self.scaler.step(optimiser)
        optimiser.zero_grad(set_to_none=True)
        return norm


class Average:
    """Exponential moving average of a network's weights and batch statistics, which copied would be those of the last
    few batches, and of other weights.

    Over the first steps the decay is (1 + step) / (10 + step), so that a random start is forgotten. From trained
    weights it is (1 + step) / (2 + step): the mean of all steps so far.
    """

    def __init__(self, module: nn.Module, decay: float, trained: bool = False) -> None:
        self.decay, self.head = decay, 2 if trained else 10
        self.source = module
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (self.head + step))
        for mine, theirs in zip(self.module.state_dict().values(), self.source.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
