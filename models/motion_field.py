"""Alignment: warps the reference images and their features to the target's pose and mouth (paper, section 3.2.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ConvBlock, ModulatedBlock, Spade, each


class ReferenceFeatures(NamedTuple):
    """What the references give, whatever the target: computed once a video."""

    full: Tensor  # (B, N, 3 + C1, H, W): the images, RGB in [0, 1], then their features at full size
    half: Tensor  # (B, N, C2, H/2, W/2): features at half size
    landmarks: Tensor | None = None  # (B, N, 131, 2) in the crop, where the flow starts from landmarks

    def choose(self, chosen: Tensor) -> "ReferenceFeatures":
        """Of one set (batch 1), those at positions (B, n): a set for each of B targets."""
        return ReferenceFeatures(*(None if x is None else x[0, chosen] for x in self))  # type: ignore[arg-type]


class Motion(NamedTuple):
    """Where each pixel of the target comes from in each reference, and how far that reference is to be trusted."""

    flow: Tensor  # (B, N, 2, H, W): pixels, x then y
    weight: Tensor  # (B, N, 1, H, W): in [0, 1]


class ReferenceEncoder(nn.Module):
    """Features of every reference from its image and sketch."""

    def __init__(self, sketch_channels: int, shallow: int, deep: int, kernel: int):
        super().__init__()
        self.shallow = ConvBlock(3 + sketch_channels, shallow, kernel, padding=kernel // 2)
        self.deep = ConvBlock(shallow, deep, stride=2)

    def forward(self, images: Tensor, sketches: Tensor) -> ReferenceFeatures:
        """Images (B, N, 3, H, W) RGB in [0, 1] and sketches (B, N, S, H, W) in [0, 1] -> features."""
        shallow = each(self.shallow, torch.cat([images, sketches], dim=2))
        return ReferenceFeatures(torch.cat([images, shallow], dim=2), each(self.deep, shallow))


class MotionField(nn.Module):
    """The flow and the weight of each reference, from its features and the target's sketches."""

    def __init__(self, target_channels: int, shallow: int, deep: int, hidden: int, kernel: int):
        super().__init__()
        fine = deep // 4
        self.coarse = nn.ModuleList(
            [ModulatedBlock(deep, lambda: Spade(deep, target_channels, hidden)) for _ in range(2)]
        )
        self.fine = ModulatedBlock(fine, lambda: Spade(fine, target_channels, hidden))
        self.flow = nn.Conv2d(fine, 2, kernel, padding="same")
        self.weight = nn.Sequential(
            nn.Conv2d(fine, shallow, kernel, padding="same"), nn.ReLU(),
            nn.Conv2d(shallow, 1, kernel, padding="same"), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, half: Tensor, target: Tensor, start: Motion | None = None) -> Motion:
        """Reference features (1 or B, N, C2, H/2, W/2) and target sketches (B, T*S, H, W) -> motion of B*N pairs.

        With a motion to start from, features are moved by it before they are looked at, and the result refines it.
        """
        target_half = target[..., ::2, ::2]  # nearest
        moved = half if start is None else warp(half.float(), half_size(sampling_grid(start.flow, True)), True)
        x = moved.to(half.dtype)
        for block in self.coarse:
            x = block(x, target_half)  # (B, N, C2, H/2, W/2)
        x = each(lambda y: F.pixel_shuffle(y, 2), x)  # (B, N, C2/4, H, W)
        x = self.fine(x, target)
        flow, weight = each(self.flow, x), each(self.weight, x)
        return Motion(flow, weight) if start is None else Motion(start.flow + flow, start.weight * weight)


def align(features: ReferenceFeatures, motion: Motion, identity_at_zero: bool) -> tuple[Tensor, Tensor]:
    """References moved by their flow and averaged by their weight: (B, 3 + C1, H, W) and (B, C2, H/2, W/2).

    Features of batch 1 serve all B targets without being copied.
    """
    grid, weight = sampling_grid(motion.flow.float(), identity_at_zero), motion.weight.float()  # (B, N, 2 and 1, H, W)
    pictures, shallow = features.full.float().tensor_split([3], dim=2)
    sampling = "bicubic" if identity_at_zero else "bilinear"
    full = [warp(pictures, grid, identity_at_zero, sampling), warp(shallow, grid, identity_at_zero)]
    half = warp(features.half.float(), half_size(grid), identity_at_zero)
    return _aggregate(torch.cat(full, dim=2), weight), _aggregate(half, weight[..., ::2, ::2])


def align_pictures(pictures: Tensor, motion: Motion, identity_at_zero: bool) -> Tensor:
    """Pictures of the references, k times the motion's size, aligned and averaged by it: rows from the middle on.

    (B, N, 3, k*H, k*W) -> (B, 3, k*H/2, k*W)
    """
    factor, middle = pictures.shape[-1] // motion.flow.shape[-1], pictures.shape[-2] // 2
    flow, weight = (
        each(lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear"), field.float()) for field in motion
    )
    grid = sampling_grid(flow * factor, identity_at_zero)
    return _aggregate(warp(pictures, grid[..., middle:, :], True, "bicubic"), weight[..., middle:, :])


def sampling_grid(flow: Tensor, identity_at_zero: bool) -> Tensor:
    """Sampling positions in [-1, 1] (align_corners=False) for a flow (..., 2, H, W) in pixels.

    The released grid has its corners at -1 and 1, where align_corners=False sees the pixels' outer edges, so that zero
    flow magnifies the picture by half a pixel at each border. With `identity_at_zero` the corners are pixel centres.
    """

    def axis(displacement: Tensor, length: int) -> tuple[Tensor, Tensor]:
        corner = (length - 1) / length if identity_at_zero else 1.0
        return corner * 2 / (length - 1) * displacement, corner * torch.linspace(-1, 1, length, device=flow.device)

    (right, x), (down, y) = axis(flow[..., 0, :, :], flow.shape[-1]), axis(flow[..., 1, :, :], flow.shape[-2])
    return torch.stack([x + right, y[:, None] + down], dim=-3)


def half_size(grid: Tensor) -> Tensor:
    """(B, N, 2, H, W) -> (B, N, 2, H/2, W/2), the same as bilinear resizing."""
    return each(lambda g: F.avg_pool2d(g, 2), grid)


def warp(source: Tensor, grid: Tensor, edges_go_on: bool, mode: str = "bilinear") -> Tensor:
    """Source (1 or B, N, C, H, W) by grid (B, N, 2, h, w) -> (B, N, C, h, w).

    Outside the source is zero, as released, or its edges go on: black borders are no picture of anybody. Bilinear, as
    released, blurs between pixels; "bicubic", for pictures, does not, and stays in [0, 1].
    """
    (batch, count), (height, width) = grid.shape[:2], grid.shape[-2:]
    sources, repeats = source.shape[0], batch // source.shape[0]
    # Targets that share a source are stacked along the height of the grid: the source is read, never copied.
    stacked = grid.view(sources, repeats, count, 2, height, width).permute(0, 2, 1, 4, 5, 3)
    stacked = stacked.reshape(sources * count, repeats * height, width, 2)
    outside = "border" if edges_go_on else "zeros"
    warped = F.grid_sample(source.flatten(0, 1), stacked, mode, outside, align_corners=False)
    warped = (warped.clamp(0, 1) if mode == "bicubic" else warped).view(sources, count, -1, repeats, height, width)
    return warped.permute(0, 3, 1, 2, 4, 5).reshape(batch, count, -1, height, width)


def _aggregate(warped: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the references: (B, N, C, H, W) and (B, N, 1, H, W) -> (B, C, H, W)."""
    return (warped * weight).sum(1) / (weight.sum(1) + 1e-5)
