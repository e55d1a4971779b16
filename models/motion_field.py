"""Alignment module G_a: warps reference images and their features to the target's pose and expression.

Paper, section 3.2.1, equations 13 to 15.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import RendererConfig
from models.layers import ConvBlock, ModulatedBlock, Spade, map_references


class ReferenceFeatures(NamedTuple):
    """The reference images and their visual features. They do not depend on the target; a video needs them once."""

    images: Tensor  # I^r: (B, N, 3, H, W), RGB in [0, 1]
    shallow: Tensor  # h^1: (B, N, C1, H, W)
    deep: Tensor  # h^2: (B, N, C2, H/2, W/2)
    landmarks: Tensor | None = None  # (B, N, 131, 2), x, y in [0, 1] of the crop; only the lite renderer uses them

    def choose(self, indices: Tensor) -> "ReferenceFeatures":
        """Selects from one set (batch 1) the references at indices (B, n): a set for each of B targets."""
        return ReferenceFeatures(*(None if x is None else x[0, indices] for x in self))  # type: ignore[arg-type]


class Motion(NamedTuple):
    """Motion field and aggregation weight of each reference."""

    flow: Tensor  # F: (B, N, 2, H, W), pixels, x then y: offset of each target pixel's position in the reference
    weight: Tensor  # w: (B, N, 1, H, W), in [0, 1]


class AlignedReferences(NamedTuple):
    """References warped to the target and averaged."""

    image: Tensor  # (B, 3, H, W), RGB in [0, 1]
    shallow: Tensor  # (B, C1, H, W)
    deep: Tensor  # (B, C2, H/2, W/2)


class ReferenceEncoder(nn.Module):
    """Visual features of each reference at two spatial resolutions, from its image and sketch."""

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
        coarse = config.alignment_deep
        fine = coarse // 4
        sketches = config.num_frames * config.sketch_channels
        self.coarse = nn.ModuleList(ModulatedBlock(Spade, coarse, sketches, config.modulation) for _ in range(2))
        self.fine = ModulatedBlock(Spade, fine, sketches, config.modulation)
        self.flow = nn.Conv2d(fine, 2, config.kernel, padding="same")
        self.weight = nn.Sequential(
            nn.Conv2d(fine, config.shallow, config.kernel, padding="same"),
            nn.ReLU(),
            nn.Conv2d(config.shallow, 1, config.kernel, padding="same"),
            nn.Sigmoid(),
        )

    def forward(self, deep: Tensor, sketches: Tensor) -> Motion:
        """Features h^2 (1 or B, N, C2, H/2, W/2) and target sketches (B, T*S, H, W) -> motion of B*N pairs."""
        half_size_sketches = sketches[..., ::2, ::2]  # nearest
        x = torch.cat([deep.flatten(0, 1)] * (len(sketches) // len(deep)))  # (B*N, C2, H/2, W/2)
        for block in self.coarse:
            x = block(x, half_size_sketches)
        x = self.fine(F.pixel_shuffle(x, 2), sketches)  # (B*N, C2/4, H, W)
        batch = (len(sketches), -1)
        return Motion(self.flow(x).unflatten(0, batch), self.weight(x).unflatten(0, batch))


@dataclass(frozen=True)
class Sampling:
    """How references are sampled at the positions that the motion field gives."""

    margin: float
    """Pixels from the centre of an edge pixel to the end of the grid, -1 or 1; 0.5 makes zero flow the identity."""
    padding_mode: str
    """Values outside a reference, as in `grid_sample`: zeros, or border (the nearest edge pixel)."""
    image_mode: str
    """Interpolation of the images, bilinear or bicubic; that of the features is always bilinear."""

    def grid(self, flow: Tensor, top: int = 0) -> Tensor:
        """Returns the sampling positions of a flow (..., 2, H, W) in pixels, in [-1, 1] (align_corners=False).

        The flow covers the picture from row `top` to the bottom.
        """
        height, width = flow.shape[-2:]
        x = torch.arange(width, device=flow.device)
        y = torch.arange(top, top + height, device=flow.device)
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # (2, H, W)
        span = flow.new_tensor([width, top + height])[:, None, None] - 1 + 2 * self.margin
        return torch.addcmul(2 * (pixels + self.margin) / span - 1, flow, 2 / span)

    def warp(self, source: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
        """Samples a source (1 or B, N, C, H, W) at positions (B, N, 2, h, w): (B, N, C, h, w).

        Bicubic interpolation, which overshoots at edges, is clamped to [0, 1].
        """
        sources = source.expand(len(grid), -1, -1, -1, -1).flatten(0, 1)
        positions = grid.flatten(0, 1).permute(0, 2, 3, 1)
        warped = F.grid_sample(sources, positions, mode, self.padding_mode, align_corners=False)
        if mode == "bicubic":
            warped = warped.clamp(0, 1)
        return warped.unflatten(0, grid.shape[:2])

    def aggregate(self, source: Tensor, grid: Tensor, weight: Tensor, mode: str = "bilinear") -> Tensor:
        """Returns the mean (B, C, h, w) of warped references, weighted by (B, N, 1, h, w); the rest as in `warp`.

        Warping one reference at a time saves memory, and a source of batch 1 serves all B targets without a copy.
        """
        total = torch.zeros((), device=grid.device)
        for one, positions, share in zip(source.split(1, 1), grid.split(1, 1), weight.split(1, 1), strict=True):
            total = torch.addcmul(total, self.warp(one.float(), positions, mode), share)
        return total[:, 0] / (weight.sum(1) + 1e-5)


# The released grid spans [-1, 1] from pixel centre to pixel centre, but sampling uses align_corners=False. Zero flow
# therefore shrinks the picture by half a pixel at each border.
RELEASED = Sampling(margin=0, padding_mode="zeros", image_mode="bilinear")


def align(features: ReferenceFeatures, motion: Motion, sampling: Sampling) -> AlignedReferences:
    """Warps the references by their motion fields and averages them by their weights (equations 14 and 15)."""
    grid = sampling.grid(motion.flow.float())  # (B, N, 2, H, W)
    weight = motion.weight.float()  # (B, N, 1, H, W)
    image = sampling.aggregate(features.images, grid, weight, sampling.image_mode)  # equation 14
    shallow = sampling.aggregate(features.shallow, grid, weight)  # equation 15
    deep = sampling.aggregate(features.deep, half_size(grid), weight[..., ::2, ::2])
    return AlignedReferences(image, shallow, deep)


def average(features: ReferenceFeatures) -> AlignedReferences:
    """Returns the plain mean of misaligned references (Table 4, 'w/o warping'), with the batch size of the features."""
    return AlignedReferences(*(x.mean(1) for x in features[:3]))


def half_size(x: Tensor) -> Tensor:
    """Halves the size of (B, N, C, H, W), like bilinear resizing: (B, N, C, H/2, W/2)."""
    return map_references(nn.AvgPool2d(2), x)
