"""Initial weights of the references, from how well the initial motion aligns each of them. Not in the paper."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from face.landmarks import LIP_SLICE
from models.layers import map_references, resize, zero_init
from models.lite import LITE
from models.motion_field import half_size

GRID = 32  # cells per side of the cues and the weights
CUES = 12
WIDTH = 24  # channels
DILATIONS = (1, 2, 4)  # cells
BEND_WINDOW = 9  # cells per side of the local mean, from which a flow's bend is its difference
NOISE = 0.01  # colour differences below this mean nothing
# Units that bring all cues to a similar scale.
DIFFERENCE = 0.05  # of colours in [0, 1]
DETAIL = 0.02  # likewise
FLOW = 1 / 16  # of the crop's side
BEND = 1 / 64  # likewise
DISTANCE = 1 / 25  # likewise


class ReferenceWeights(nn.Module):
    """A small convolutional network that compares any number of references, regardless of their order.

    Its output layer is zero-initialised, so that all weights are equal at first.
    """

    def __init__(self):
        super().__init__()
        self.input = nn.Conv2d(CUES, WIDTH, 1)
        self.own = _dilated_layers()
        self.shared = _dilated_layers()
        self.logits = nn.Conv2d(WIDTH, 1, 1)
        zero_init(self.logits)

    def forward(self, cues: Tensor, decision: Tensor) -> Tensor:
        """Computes weights (B, N, 1, S, S) that sum to 1 over the references.

        Args:
            cues: from `alignment_cues`, (B, N, 12, G, G)
            decision: (B, 1, 1, S, S); weights are raised to the power 1 + decision, then normalised again
        """
        x = F.leaky_relu(map_references(self.input, cues), 0.2)
        for own, shared in zip(self.own, self.shared, strict=True):
            mean = shared(x.mean(1))[:, None]
            x = x + F.leaky_relu(map_references(own, x) + mean, 0.2)  # (B, N, C, G, G)
        logits = resize(map_references(self.logits, x), decision.shape[-1])
        return (logits * (1 + decision)).softmax(dim=1)


def _dilated_layers() -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=d, dilation=d) for d in DILATIONS)


@torch.no_grad()
def alignment_cues(
    flow: Tensor,
    landmarks: Tensor,
    reference_landmarks: Tensor,
    images: Tensor,
    masked_target: Tensor,
    off_mouth: Tensor,
) -> Tensor:
    """Computes cues for how well each reference is aligned: (B, N, 12, G, G).

    Per grid cell: the column's error in the upper half and the deviation from the other references (both also relative
    to the mean over the references), high-frequency detail (low when motion-blurred), the flow and its local variation,
    the distances of all landmarks and of the lips from the target's, and whether the cell lies off the mouth.

    Args:
        flow: (B, N, 2, S, S) in pixels
        landmarks: the target's, (B, 131, 2), x, y in [0, 1] of the crop
        reference_landmarks: (1 or B, N, 131, 2), likewise
        images: reference images, (1 or B, N, 3, S, S), RGB in [0, 1]
        masked_target: (B, 3, S, S), RGB in [0, 1]; only the upper half is read
        off_mouth: (B, 1, S, S), 0 at the target's lips, 1 far from them
    """
    size = flow.shape[-1]
    grid = half_size(LITE.grid(flow))
    warped = LITE.warp(half_size(images), grid)  # (B, N, 3, S/2, S/2)

    rows = slice(size * 3 // 32, size // 4)  # from the brow to the middle, in half-size images
    error = warped - F.avg_pool2d(masked_target, 2)[:, None]
    column_error = error[..., rows, :].abs().mean((2, 3))  # (B, N, S/2)
    column_error = F.adaptive_avg_pool1d(column_error, GRID)[:, :, None, None]  # (B, N, 1, 1, G)
    deviation = _cells((warped - warped.mean(1, keepdim=True)).abs().mean(2, keepdim=True))
    grey = warped.mean(2, keepdim=True)
    detail = _cells((grey - local_mean(grey, 3)).abs())

    flow = _cells(flow) / size
    bend = flow - local_mean(flow, BEND_WINDOW)

    offset = (reference_landmarks - landmarks[:, None]) / DISTANCE  # (B, N, 131, 2)
    lip_offset = offset[..., LIP_SLICE, :]
    lip_offset = lip_offset - lip_offset.mean(-2, keepdim=True)
    mouth = F.adaptive_avg_pool2d(off_mouth, GRID)[:, None]  # (B, 1, 1, G, G)

    cues = [
        column_error / DIFFERENCE,
        _relative_to_mean(column_error),
        deviation / DIFFERENCE,
        _relative_to_mean(deviation),
        detail / DETAIL,
        flow / FLOW,
        bend / BEND,
        _mean_length(offset),
        _mean_length(lip_offset),
        mouth,
    ]
    return torch.cat([cue.expand(*flow.shape[:2], -1, GRID, GRID) for cue in cues], dim=2)


def _relative_to_mean(cue: Tensor) -> Tensor:
    """Returns the relative difference of a cue from its mean over the references."""
    return cue / (cue.mean(1, keepdim=True) + NOISE) - 1


def _mean_length(vectors: Tensor) -> Tensor:
    """Vectors (B, N, K, 2) -> their mean length (B, N, 1, 1, 1)."""
    return torch.linalg.vector_norm(vectors, dim=-1).mean(-1)[..., None, None, None]


def local_mean(x: Tensor, side: int) -> Tensor:
    """Averages (B, N, C, H, W) over a square of `side` pixels around each pixel, smaller at the edges."""
    return map_references(nn.AvgPool2d(side, 1, side // 2, count_include_pad=False), x)


def _cells(x: Tensor) -> Tensor:
    return map_references(nn.AdaptiveAvgPool2d(GRID), x)
