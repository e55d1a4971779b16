"""Alignment module G_a: warps reference images and their features to the target's pose and expression.

Paper, section 3.2.1, equations 13 to 15.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import RendererConfig
from models.layers import ConvBlock, ModulatedBlock, Spade, map_references


class ReferenceFeatures(NamedTuple):
    """The reference images and their visual features. They do not depend on the target: computed once a video."""

    images: Tensor  # I^r: (B, N, 3, H, W), RGB in [0, 1]
    shallow: Tensor  # h^1: (B, N, C1, H, W)
    deep: Tensor  # h^2: (B, N, C2, H/2, W/2)
    landmarks: Tensor | None = None  # (B, N, 131, 2), x, y in [0, 1] of the crop; for subclasses of the renderer

    def choose(self, indices: Tensor) -> "ReferenceFeatures":
        """Of a single set (batch 1), the references at indices (B, n): a set for each of B targets."""
        return ReferenceFeatures(*(None if x is None else x[0, indices] for x in self))  # type: ignore[arg-type]


class Motion(NamedTuple):
    """Motion field and aggregation weight of each reference."""

    flow: Tensor  # F: (B, N, 2, H, W), in pixels, x then y: where a target pixel lies in the reference
    weight: Tensor  # w: (B, N, 1, H, W), in [0, 1]


class AlignedReferences(NamedTuple):
    """References warped to the target and averaged."""

    image: Tensor  # (B, 3, H, W), RGB in [0, 1]
    shallow: Tensor  # (B, C1, H, W)
    deep: Tensor  # (B, C2, H/2, W/2)


class ReferenceEncoder(nn.Module):
    """Visual features of each reference in two spatial resolutions, from its image and sketch."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        channels = 3 + config.sketch_channels
        self.shallow = ConvBlock(channels, config.shallow, config.kernel, padding=config.kernel // 2)
        self.deep = ConvBlock(config.shallow, config.alignment_deep, stride=2)

    def forward(self, images: Tensor, sketches: Tensor) -> ReferenceFeatures:
        """Images (B, N, 3, H, W), RGB in [0, 1], and sketches (B, N, S, H, W) in [0, 1] -> features."""
        shallow = map_references(self.shallow, torch.cat([images, sketches], dim=2))  # h^1
        deep = map_references(self.deep, shallow)  # h^2
        return ReferenceFeatures(images, shallow, deep)


class MotionField(nn.Module):
    """Motion field and weight of each reference, from its features and the target's sketches (equation 13)."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        c = config
        fine = c.alignment_deep // 4
        sketches = c.num_frames * c.sketch_channels
        self.coarse = nn.ModuleList(
            [
                ModulatedBlock(c.alignment_deep, lambda: Spade(c.alignment_deep, sketches, c.modulation))
                for _ in range(2)
            ]
        )
        self.fine = ModulatedBlock(fine, lambda: Spade(fine, sketches, c.modulation))
        self.flow = nn.Conv2d(fine, 2, c.kernel, padding="same")
        self.weight = nn.Sequential(
            nn.Conv2d(fine, c.shallow, c.kernel, padding="same"),
            nn.ReLU(),
            nn.Conv2d(c.shallow, 1, c.kernel, padding="same"),
            nn.Sigmoid(),
        )

    def forward(self, deep: Tensor, sketches: Tensor) -> Motion:
        """Features h^2 (1 or B, N, C2, H/2, W/2) and target sketches (B, T*S, H, W) -> motion of B*N pairs."""
        half_size_sketches = sketches[..., ::2, ::2]  # nearest
        x = deep
        for block in self.coarse:
            x = block(x, half_size_sketches)  # (B, N, C2, H/2, W/2)
        x = map_references(lambda y: F.pixel_shuffle(y, 2), x)  # (B, N, C2/4, H, W)
        x = self.fine(x, sketches)
        return Motion(map_references(self.flow, x), map_references(self.weight, x))


@dataclass(frozen=True)
class Sampling:
    """How references are sampled where the motion field points."""

    corners: Literal["edges", "centres"]
    """What the corners of the regular grid are: the outer edges of the corner pixels or (correct) their centres."""
    outside: Literal["zeros", "border"]
    """What lies outside a reference."""
    images: Literal["bilinear", "bicubic"]
    """Interpolation of the images; features are always bilinear."""


# The released grid spans [-1, 1] but is sampled with align_corners=False: zero flow magnifies by half a pixel a border.
RELEASED = Sampling(corners="edges", outside="zeros", images="bilinear")


def align(features: ReferenceFeatures, motion: Motion, sampling: Sampling) -> AlignedReferences:
    """Warps the references by their motion fields and averages them by their weights (equations 14 and 15)."""
    grid = sampling_grid(motion.flow.float(), sampling)  # (B, N, 2, H, W)
    weight = motion.weight.float()  # (B, N, 1, H, W)
    image = aggregate(features.images, grid, weight, sampling, sampling.images)  # equation 14
    shallow = aggregate(features.shallow, grid, weight, sampling)  # equation 15
    deep = aggregate(features.deep, half_size(grid), weight[..., ::2, ::2], sampling)
    return AlignedReferences(image, shallow, deep)


def average(features: ReferenceFeatures) -> AlignedReferences:
    """The plain mean of misaligned references (Table 4, 'w/o warping'), with the features' batch size."""
    return AlignedReferences(features.images.mean(1), features.shallow.mean(1), features.deep.mean(1))


def sampling_grid(flow: Tensor, sampling: Sampling, top: int = 0) -> Tensor:
    """Sampling positions in [-1, 1] (align_corners=False) for a flow (..., 2, H, W) in pixels; `top` rows lie above."""
    height, width = flow.shape[-2:]
    size = flow.new_tensor([width, top + height])[:, None, None]
    x = torch.arange(width, device=flow.device).expand(height, width)
    y = torch.arange(top, top + height, device=flow.device)[:, None].expand(height, width)
    pixels = torch.stack([x, y])
    if sampling.corners == "centres":
        return torch.addcmul((2 * pixels + 1) / size - 1, flow, 2 / size)
    return torch.addcmul(2 * pixels / (size - 1) - 1, flow, 2 / (size - 1))


def half_size(grid: Tensor) -> Tensor:
    """(B, N, 2, H, W) -> (B, N, 2, H/2, W/2), the same as bilinear resizing."""
    return map_references(lambda g: F.avg_pool2d(g, 2), grid)


def warp(source: Tensor, grid: Tensor, sampling: Sampling, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Samples a source (1 or B, N, C, H, W) by a grid (B, N, 2, h, w) -> (B, N, C, h, w); bicubic stays in [0, 1]."""
    sources = source.expand(len(grid), -1, -1, -1, -1).flatten(0, 1)
    positions = grid.flatten(0, 1).permute(0, 2, 3, 1)
    warped = F.grid_sample(sources, positions, mode, sampling.outside, align_corners=False)
    if mode == "bicubic":
        warped = warped.clamp(0, 1)
    return warped.unflatten(0, grid.shape[:2])


def aggregate(
    source: Tensor, grid: Tensor, weight: Tensor, sampling: Sampling, mode: Literal["bilinear", "bicubic"] = "bilinear"
) -> Tensor:
    """Weighted mean of warped references: (B, C, h, w).

    One reference after the other saves memory, and a source of batch 1 serves all B targets without being copied.

    Args:
        source: (1 or B, N, C, H, W)
        grid: (B, N, 2, h, w)
        weight: (B, N, 1, h, w)
        sampling: how references are sampled
        mode: interpolation; bicubic stays in [0, 1]
    """
    total = torch.zeros((), device=grid.device)
    for index, reference_weight in enumerate(weight.unbind(1)):
        one = slice(index, index + 1)
        warped = warp(source[:, one].float(), grid[:, one], sampling, mode)[:, 0]
        total = torch.addcmul(total, warped, reference_weight)
    return total / (weight.sum(1) + 1e-5)
