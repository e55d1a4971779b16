"""Building blocks: encoder convolutions, and blocks whose normalisation is modulated (SPADE, AdaIN)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.composed_conv import two_convolutions

MIN_GROUPS = 16  # with fewer, group_norm is slow in bfloat16 on CPU

Stride = int | tuple[int, int]
Function = Callable[[Tensor], Tensor]


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, optional residual connection, activation: (B, in, ...) -> (B, out, ...)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: Stride = 1,
        padding: int = 1,
        *,
        dimensions: int = 2,
        residual: bool = False,
        bias: bool = True,
        activation: Function = F.relu,
    ):
        super().__init__()
        conv = getattr(nn, f"Conv{dimensions}d")
        self.conv = conv(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.norm = getattr(nn, f"BatchNorm{dimensions}d")(out_channels)
        self.residual = residual
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.residual:
            y = y + x
        return self.activation(y)


def encoder(
    channels: int,
    stages: Sequence[tuple[int, Stride, int]],
    out: int,
    activation: Function,
    dimensions: int = 2,
    last_residual: bool = False,
) -> nn.Sequential:
    """Builds an encoder of pictures or sequences to one vector each: (B, channels, ...) -> (B, out, 1, ...).

    Args:
        channels: channels of the input
        stages: channels, stride of the first block and number of residual blocks after it
        out: channels of the embedding
        activation: activation of the last block
        dimensions: 2 for pictures, 1 for sequences
        last_residual: whether the last block is residual
    """
    block = partial(ConvBlock, dimensions=dimensions)
    blocks = []
    for wider, stride, residuals in stages:
        blocks.append(block(channels, wider, stride=stride))
        for _ in range(residuals):
            blocks.append(block(wider, wider, residual=True))
        channels = wider
    blocks.append(block(channels, out, padding=0))
    blocks.append(block(out, out, kernel=1, padding=0, residual=last_residual, activation=activation))
    return nn.Sequential(*blocks)


def audio_encoder(width: int, out: int, activation: Function) -> nn.Sequential:
    """Builds an encoder of mel windows, (B, 1, 80, 16) -> (B, out, 1, 1), similar to Wav2Lip's.

    The activation of the last block is tanh in stage 1 and ReLU in stage 2.
    """
    stages = [(width, 1, 2), (2 * width, (3, 1), 2), (4 * width, 3, 2), (8 * width, (3, 2), 1)]
    return encoder(1, stages, out, activation)


class Spade(nn.Module):
    """SPADE, spatially adaptive modulation: feature maps (B, M, H, W) -> gamma and beta (B, 2C, H, W)."""

    def __init__(self, channels: int, maps: int, hidden: int):
        super().__init__()
        self.hidden = nn.Conv2d(maps, hidden, 3, padding=1)
        self.affine = nn.Conv2d(hidden, 2 * channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return two_convolutions(self.hidden, self.affine, maps)


class Adain(nn.Module):
    """AdaIN, modulation of whole channels: style vectors (B, S) -> gamma and beta (B, 2C, 1, 1)."""

    def __init__(self, channels: int, style: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(style, hidden)
        self.affine = nn.Linear(hidden, 2 * channels)

    def forward(self, style: Tensor) -> Tensor:
        return self.affine(F.relu(self.hidden(style)))[..., None, None]


class ModulatedBlock(nn.Module):
    """Twice InstanceNorm, modulation by SPADE or AdaIN, LeakyReLU and convolution, all with the same channels."""

    def __init__(self, layer: type[Spade | Adain], channels: int, source: int, hidden: int):
        """`source` is the number of channels that `layer` reads, `hidden` that of its hidden layer."""
        super().__init__()
        self.norms = nn.ModuleList(layer(channels, source, hidden) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Modulates the features of each target's N references, or of the target itself (N = 1).

        The modulation depends on the target alone, so it is computed once for all its references.

        Args:
            x: features (B*N, C, H, W)
            source: one modulating input per target, maps (B, M, H, W) for SPADE or style vectors (B, S) for AdaIN
        """
        for norm, conv in zip(self.norms, self.convs, strict=True):
            gamma, beta = norm(source).chunk(2, dim=1)
            scale = as_rows(1 + gamma, x.shape[-1])  # (B, C, H or 1, W)
            shift = as_rows(beta, x.shape[-1])
            x = instance_norm(x.to(gamma.dtype)).unflatten(0, (len(source), -1))  # (B, N, C, H, W)
            x = torch.addcmul(shift[:, None], x, scale[:, None]).flatten(0, 1)
            x = conv(F.leaky_relu(x, 0.2, inplace=True))
        return x


def instance_norm(x: Tensor) -> Tensor:
    """Applies InstanceNorm without affine parameters, eps 1e-5, to (B, C, H, W), by whatever is fastest on CPU."""
    half = x.dtype == torch.bfloat16
    if x.requires_grad or (half and x.shape[1] < MIN_GROUPS):
        return channels_last(F.instance_norm(x))
    if half:
        return F.group_norm(x, x.shape[1])
    mean = x.mean((-2, -1), keepdim=True)
    variance = x.square().mean((-2, -1), keepdim=True) - mean.square()
    scale = torch.rsqrt(variance.clamp(min=0) + 1e-5)
    width = x.shape[-1]
    return torch.addcmul(as_rows(-mean * scale, width), x, as_rows(scale, width))


def as_rows(x: Tensor, width: int) -> Tensor:
    """Expands (B, C, H, W or 1) to (B, C, H, W), so that CPU kernels loop over rows, not over a few channels."""
    return channels_last(x.expand(-1, -1, -1, width))


def channels_last(x: Tensor) -> Tensor:
    """Stores (B, C, H, W) in memory as (B, H, W, C), the layout of the convolutions."""
    return x.contiguous(memory_format=torch.channels_last)


def zero_init(layer: nn.Module) -> None:
    """Zero-initialises the layer, so that its output is zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def map_references(function: Function, x: Tensor) -> Tensor:
    """Applies a function of (B, C, H, W) to all references (B, N, C, H, W) at once."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def resize(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resizes (B, C, H, W) or (B, N, C, H, W) bilinearly to (h, w), or to a square if `size` is a number."""
    resized = F.interpolate(x.flatten(0, -4), size, mode="bilinear")
    return resized.unflatten(0, x.shape[:-3])
