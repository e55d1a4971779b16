"""Building blocks: encoder convolutions, and blocks whose normalisation is modulated (SPADE, AdaIN)."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, (plus the input when residual,) activation: (B, in, ...) -> (B, out, ...)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int | tuple[int, int] = 1, padding: int = 1,
        *, dimensions: int = 2, residual: bool = False, bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):  # fmt: skip
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.conv = conv(in_channels, out_channels, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
        self.norm = norm(out_channels)
        self.residual = residual
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.activation(y + x if self.residual else y)


def audio_encoder(width: int, out: int, activation: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Mel windows (B, 1, 80, 16) -> embeddings (B, out, 1, 1); `width` channels first, doubled four times.

    `activation` ends the last block: tanh in stage 1, ReLU in stage 2.
    """

    def same(channels: int, times: int) -> list[ConvBlock]:
        return [ConvBlock(channels, channels, residual=True) for _ in range(times)]

    return nn.Sequential(
        ConvBlock(1, width), *same(width, 2),  # (B, w, 80, 16)
        ConvBlock(width, 2 * width, stride=(3, 1)), *same(2 * width, 2),  # (B, 2w, 27, 16)
        ConvBlock(2 * width, 4 * width, stride=3), *same(4 * width, 2),  # (B, 4w, 9, 6)
        ConvBlock(4 * width, 8 * width, stride=(3, 2)), *same(8 * width, 1),  # (B, 8w, 3, 3)
        ConvBlock(8 * width, out, padding=0),  # (B, out, 1, 1)
        ConvBlock(out, out, kernel=1, padding=0, activation=activation),
    )  # fmt: skip


class Spade(nn.Module):
    """Spatially adaptive modulation from feature maps: n + n * gamma(h) + beta(h), where h = conv(maps)."""

    def __init__(self, channels: int, maps: int, hidden: int):
        super().__init__()
        self.hidden = nn.Conv2d(maps, hidden, 3, padding=1)
        self.affine = nn.Conv2d(hidden, 2 * channels, 3, padding=1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, M, H, W) -> scale and shift (B, C, H, W)."""
        gamma, beta = self.affine(self.hidden(maps)).chunk(2, dim=1)
        return 1 + gamma, beta


class Adain(nn.Module):
    """Adaptive modulation of whole channels from a style vector: n * (1 + gamma) + beta."""

    def __init__(self, channels: int, style: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(style, hidden)
        self.affine = nn.Linear(hidden, 2 * channels)

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Style (B, S) -> scale and shift (B, C, 1, 1)."""
        gamma, beta = self.affine(F.relu(self.hidden(style)))[..., None, None].chunk(2, dim=1)
        return 1 + gamma, beta


def zeroed(layer: Layer) -> Layer:
    """The layer, of which nothing comes before it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def each(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a function of (B, C, H, W) to all references at once where x is (B, N, C, H, W)."""
    return function(x) if x.ndim == 4 else function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def instance_norm(x: Tensor) -> Tensor:
    """InstanceNorm without affine parameters, eps 1e-5, of (B, C, H, W)."""
    if x.requires_grad:  # groups of one channel: on CPU 5 times as fast as F.instance_norm, but not for channels last
        return F.group_norm(x.contiguous(), x.shape[1], eps=1e-5)
    x = x.float() - x.float().mean((-2, -1), keepdim=True)  # nearly as fast, and two digits closer
    return x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + 1e-5)


class ModulatedBlock(nn.Module):
    """Twice: InstanceNorm, scale and shift by `layer`, LeakyReLU, convolution; the number of channels stays."""

    def __init__(self, channels: int, layer: Callable[[], Spade | Adain]):
        super().__init__()
        self.norms = nn.ModuleList([layer(), layer()])
        self.convs = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Features modulated by maps (B, M, H, W) or a style vector (B, S).

        x (1 or B, C, H, W) -> (B, C, H, W), or features of references (1 or B, N, C, H, W) -> (B, N, C, H, W): the
        modulation depends on the target alone and is computed once for all of them.
        """
        for norm, conv in zip(self.norms, self.convs, strict=True):
            scale, shift = (m if x.ndim == 4 else m[:, None] for m in norm(source))
            x = torch.addcmul(shift, each(instance_norm, x), scale)
            x = each(conv, F.leaky_relu(x, 0.2, inplace=True))
        return x
