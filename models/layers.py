"""Building blocks: encoder convolutions, and blocks whose normalisation is modulated (SPADE, AdaIN)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.composed_conv import ComposedConv

VECTOR = 16  # channels below which CPU kernels for channels-last tensors are slow


class Network(nn.Module):
    """A network that comes from a weight file."""

    settings: Mapping[str, str | int | float] = {}  # landmark, mel and crop settings of its training
    extra: Mapping[str, Any] = {}  # what else the file records: step, ...


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, the input added if residual, activation: (B, in, ...) -> (B, out, ...)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        *,
        dimensions: int = 2,
        residual: bool = False,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.conv = conv(in_channels, out_channels, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
        self.norm = norm(out_channels)
        self.residual = residual
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.residual:
            y = y + x
        return self.activation(y)


def audio_encoder(width: int, out: int, activation: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Mel windows (B, 1, 80, 16) -> embeddings (B, out, 1, 1), similar to Wav2Lip's encoder.

    Args:
        width: channels of the first blocks, doubled three times
        out: channels of the embedding
        activation: of the last block: tanh in stage 1, ReLU in stage 2
    """

    blocks: list[nn.Module] = []
    channels = 1
    sizes = (width, 1, 2), (2 * width, (3, 1), 2), (4 * width, 3, 2), (8 * width, (3, 2), 1)
    for wider, stride, residuals in sizes:
        blocks.append(ConvBlock(channels, wider, stride=stride))
        blocks.extend(ConvBlock(wider, wider, residual=True) for _ in range(residuals))
        channels = wider
    blocks.append(ConvBlock(channels, out, padding=0))  # (B, 8w, 3, 3) -> (B, out, 1, 1)
    blocks.append(ConvBlock(out, out, kernel=1, padding=0, activation=activation))
    return nn.Sequential(*blocks)


class Spade(nn.Module):
    """SPADE, spatially adaptive modulation by feature maps: n + n * gamma(h) + beta(h), where h = conv(maps)."""

    def __init__(self, channels: int, maps: int, hidden: int):
        super().__init__()
        self.hidden = nn.Conv2d(maps, hidden, 3, padding=1)
        self.affine = nn.Conv2d(hidden, 2 * channels, 3, padding=1)
        self.composed = ComposedConv(self.hidden, self.affine)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, M, H, W) -> scale and shift (B, C, H, W)."""
        if maps.device.type == "cpu" and not torch.is_grad_enabled() and self.composed.is_cheaper:
            affine = self.composed(maps)
        else:
            affine = self.affine(self.hidden(maps))
        gamma, beta = affine.chunk(2, dim=1)
        return 1 + gamma, channels_last(beta)


class Adain(nn.Module):
    """AdaIN, modulation of whole channels by a style vector: n * (1 + gamma) + beta."""

    def __init__(self, channels: int, style: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(style, hidden)
        self.affine = nn.Linear(hidden, 2 * channels)

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Style (B, S) -> scale and shift (B, C, 1, 1)."""
        affine = self.affine(F.relu(self.hidden(style)))
        gamma, beta = affine[..., None, None].chunk(2, dim=1)
        return 1 + gamma, beta


def zero_init(layer: nn.Module) -> None:
    """Zero-initialises the layer, so that its output is zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def map_references(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function of (B, C, H, W) to all references at once where x is (B, N, C, H, W)."""
    if x.ndim == 4:
        return function(x)
    flat = x.flatten(0, 1)
    if len(flat) == 1:  # a batch of 1 may have any stride, by which kernels don't recognise channels last
        flat = flat.as_strided(flat.shape, (flat.numel(), *flat.stride()[1:]))
    return function(flat).unflatten(0, x.shape[:2])


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing of (B, C, H, W) or of references (B, N, C, H, W) to (h, w)."""
    return map_references(lambda y: F.interpolate(y, tuple(size), mode="bilinear"), x)


def instance_norm(x: Tensor) -> Tensor:
    """InstanceNorm without affine parameters, eps 1e-5, of (B, C, H, W); in the precision of x."""
    channels = x.shape[1]
    if x.requires_grad:  # groups of one channel: on CPU 5 times as fast as F.instance_norm
        return F.group_norm(x.contiguous(), channels, eps=1e-5)
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and channels >= VECTOR:  # of float32 it is less exact
        return F.group_norm(x, channels, eps=1e-5)
    mean = x.mean((-2, -1), keepdim=True, dtype=torch.float32)
    variance = x.square().mean((-2, -1), keepdim=True, dtype=torch.float32) - mean.square()
    scale = torch.rsqrt(variance.clamp(min=0) + 1e-5)
    width = x.shape[-1]
    return torch.addcmul(as_rows(-mean * scale, width).to(x.dtype), x, as_rows(scale, width).to(x.dtype))


def as_rows(x: Tensor, width: int) -> Tensor:
    """(B, C, 1, 1) -> (B, C, 1, W), channels last: CPU kernels loop over rows, not over a few channels."""
    return channels_last(x.expand(-1, -1, -1, width))


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) in memory as (B, H, W, C), as the convolutions read it."""
    return x.contiguous(memory_format=torch.channels_last)


class ModulatedBlock(nn.Module):
    """Twice: InstanceNorm, scale and shift by `layer`, LeakyReLU, convolution. The number of channels stays."""

    def __init__(self, channels: int, layer: Callable[[], Spade | Adain]):
        super().__init__()
        self.norms = nn.ModuleList([layer(), layer()])
        self.convs = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Modulates features by maps (B, M, H, W) or by a style vector (B, S).

        The modulation depends on the target alone, so it is computed once for all references of a target.

        Args:
            x: features (1 or B, C, H, W), or features of references (1 or B, N, C, H, W)
            source: what `layer` reads

        Returns:
            (B, C, H, W) or (B, N, C, H, W)
        """
        if source.ndim == 4:
            source = channels_last(source)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            scale, shift = norm(source)
            if scale.shape[-1] == 1:
                scale, shift = as_rows(scale, x.shape[-1]), as_rows(shift, x.shape[-1])
            if x.ndim == 5:
                scale, shift = scale[:, None], shift[:, None]
            if not x.requires_grad:  # else the first layer would work in another precision and layout than its weights
                x = map_references(channels_last, x.to(scale.dtype))
            x = torch.addcmul(shift, map_references(instance_norm, x), scale)
            x = map_references(conv, F.leaky_relu(x, 0.2, inplace=True))
        return x
