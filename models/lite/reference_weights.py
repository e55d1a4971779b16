"""How far each reference, once moved by the landmarks, is to be trusted, place by place. Not in the paper."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from face.landmarks import LIP_SLICE
from models.layers import each, zeroed
from models.motion_field import half_size, sampling_grid, warp

GRID = 32  # cells a side of the clues and of the trust
CLUES = 12
WIDTH = 24  # channels
REACHES = (1, 2, 4)  # cells from which each layer takes what it sees
AROUND = 9  # cells a side from which a flow bends
NOISE = 0.01  # differences that mean nothing
# Units of the clues, so that all are about as large.
DIFFERENCE, DETAIL = 0.05, 0.02  # of colours, in [0, 1]
FLOW, BEND, DISTANCE = 1 / 16, 1 / 64, 1 / 25  # of the crop's side


class Trust(nn.Module):
    """A small network that sees the references side by side, in any order and number. Untrained it trusts all alike."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(CLUES, WIDTH, 1)
        self.own, self.shared = (
            nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=reach, dilation=reach) for reach in REACHES)
            for _ in range(2)
        )
        self.logits = zeroed(nn.Conv2d(WIDTH, 1, 1))

    def forward(self, told: Tensor, size: tuple[int, int]) -> Tensor:
        """`clues` (B, N, 12, G, G) -> weights of the references, in sum 1: (B, N, 1, H, W)."""
        x = F.leaky_relu(each(self.enter, told), 0.2)
        for own, shared in zip(self.own, self.shared, strict=True):
            x = x + F.leaky_relu(each(own, x) + shared(x.mean(1))[:, None], 0.2)  # (B, N, C, G, G)
        logits = each(lambda y: F.interpolate(self.logits(y), size=size, mode="bilinear"), x)
        return logits.softmax(dim=1)


@torch.no_grad()
def clues(
    flow: Tensor, landmarks: Tensor, references: Tensor, pictures: Tensor, masked_target: Tensor, elsewhere: Tensor
) -> Tensor:
    """What tells which reference is right: (B, N, 12, G, G).

    In each column how far its upper half is off, and where it differs from the other references; how it has to be
    moved and bent; its fine detail, which motion blurs; and how far its landmarks and its lips are from the target's.

    Args:
        flow: (B, N, 2, S, S) in pixels
        landmarks: of the target, (B, 131, 2) in the crop, x, y in [0, 1]
        references: their landmarks, (1 or B, N, 131, 2), likewise
        pictures: of the references, (1 or B, N, 3, S, S), RGB in [0, 1]
        masked_target: (B, 3, S, S), likewise, of which the upper half is looked at
        elsewhere: (B, 1, S, S), 0 at the target's lips, 1 far from them
    """
    size, shape = flow.shape[-1], (*flow.shape[:2], 1, GRID, GRID)
    rows = slice(size * 3 // 32, size // 4)  # of half as many, from the brow to the middle
    seen = warp(each(nn.AvgPool2d(2), pictures), half_size(sampling_grid(flow, True)), True)  # (B, N, 3, S/2, S/2)
    off = (seen - F.avg_pool2d(masked_target, 2)[:, None])[..., rows, :].abs().mean((2, 3))  # (B, N, S/2)
    off = F.adaptive_avg_pool1d(off, GRID)[:, :, None, None].expand(shape)
    unlike = _cells((seen - seen.mean(1, keepdim=True)).abs().mean(2, keepdim=True))
    detail = _cells(each(lambda x: (x - _mean(x, 3)).abs(), seen.mean(2, keepdim=True)))
    flow = _cells(flow) / size
    bent = flow - each(lambda x: _mean(x, AROUND), flow)
    apart = (references - landmarks[:, None]) / DISTANCE  # (B, N, 131, 2)
    lips = apart[..., LIP_SLICE, :] - apart[..., LIP_SLICE, :].mean(-2, keepdim=True)
    apart, lips = (torch.hypot(*x.unbind(-1)).mean(-1)[..., None, None, None].expand(shape) for x in (apart, lips))
    mouth = F.adaptive_avg_pool2d(elsewhere, GRID)[:, None].expand(shape)
    off, unlike = ([x / DIFFERENCE, x / (x.mean(1, keepdim=True) + NOISE) - 1] for x in (off, unlike))
    return torch.cat([*off, *unlike, detail / DETAIL, flow / FLOW, bent / BEND, apart, lips, mouth], dim=2)


def _mean(x: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)


def _cells(x: Tensor) -> Tensor:
    return each(lambda y: F.adaptive_avg_pool2d(y, GRID), x)
