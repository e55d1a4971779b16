"""Where the alignment starts: from the landmarks, and from the target's upper half, which is known.

Not in the paper.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from face.landmarks import LIP_SLICE
from models.layers import each, zeroed
from models.lite.reference_weights import NOISE, Trust, clues
from models.motion_field import Motion, sampling_grid, warp

GRID = 32  # cells a side in which the flow from landmarks is computed
BLUR = 0.02  # of the crop's side: landmarks nearer than this are averaged
MOUTH = 0.15  # of the crop's side: how far from the lips the upper half says little about them
CELLS = (4, 16)  # rows and columns in which the upper half's motion is measured
SCALES = (4, 2)  # by which pictures are shrunk for it, step by step
LONGEST = 3.0  # pixels of a step
FLATNESS = 5e-5  # squared slope under which a cell has nothing to hold on to
SEEN = 8  # cells a side of the flow that the correction is told
CORRECTION = 16  # cells a side of the correction
SEEN_UNIT = 1 / 64  # of the crop's side: the unit of length in which the correction is told these
CORRECTION_UNIT = 1 / 16  # and gives its answer: the longer, the faster it learns


class LandmarkStart(nn.Module):
    """A flow from the landmarks and its correction, and how far each reference is trusted.

    Landmarks are some tenths of a pixel off, and what lies around the face moves otherwise. How far the upper halves
    of reference and target still differ is seen in the pictures; what that means for the lower half is learned: a
    linear layer, zero at first, that means the same in a mirror.
    """

    def __init__(self):
        super().__init__()
        self.correction = zeroed(nn.Linear(2 * (CELLS[0] * CELLS[1] + SEEN**2), 2 * CORRECTION**2))
        self.trust = Trust()

    def forward(self, landmarks: Tensor, references: Tensor, pictures: Tensor, masked_target: Tensor) -> Motion:
        """Always in full precision: halves would round to parts of a pixel.

        Args:
            landmarks: of the target, (B, 131, 2) in the crop, x, y in [0, 1]
            references: their landmarks, (1 or B, N, 131, 2), likewise
            pictures: of the references, (1 or B, N, 3, S, S), RGB in [0, 1]
            masked_target: (B, 3, S, S), likewise, of which the upper half is looked at
        """
        with torch.autocast(landmarks.device.type, enabled=False):
            size, pictures, elsewhere = pictures.shape[-1], pictures.float(), off_the_mouth(landmarks, masked_target)
            flow = landmark_flow(landmarks, references, size)
            coarse = each(lambda x: F.adaptive_avg_pool2d(x, SEEN), flow)
            seen = [x / (SEEN_UNIT * size) for x in (upper_motion(flow, pictures, masked_target), coarse)]
            # A mirror must not change what is learned: half as many weights to find, and 0.03 dB.
            given = [torch.cat([x.flatten(2) for x in motions], dim=2) for motions in (seen, map(mirrored, seen))]
            straight, turned = self.correction(torch.stack(given)).unflatten(-1, (2, CORRECTION, CORRECTION))
            correction = (straight + mirrored(turned)) / 2  # (B, N, 2, 16, 16)
            correction = each(lambda x: F.interpolate(x, size=(size, size), mode="bilinear"), correction)
            flow = flow + CORRECTION_UNIT * size * correction * elsewhere[:, None]
            told = clues(flow, landmarks, references, pictures, masked_target, elsewhere)
            return Motion(flow, self.trust(told, flow.shape[-2:]))


def mirrored(motion: Tensor) -> Tensor:
    """What a mirror shows of a motion (..., 2, H, W)."""
    right, down = motion.flip(-1).split(1, dim=-3)
    return torch.cat([-right, down], dim=-3)


def landmark_flow(target: Tensor, references: Tensor, size: int) -> Tensor:
    """Flow that takes every reference's landmarks to the target's: (B, N, 2, H, W) in pixels.

    Between landmarks the displacement is their mean, weighted by inverse fourth powers of distance.

    Args:
        target: (B, 131, 2) in the crop, x, y in [0, 1]
        references: (1 or B, N, 131, 2), likewise
        size: side of the crop in pixels
    """
    nearness = F.normalize((_distances(target) ** 2 + BLUR**2) ** -2, p=1, dim=-1)  # (B, G*G, 131)
    displacement = (references - target[:, None]) * size  # (B, N, 131, 2)
    coarse = torch.einsum("bgk,bnkc->bncg", nearness, displacement).unflatten(-1, (GRID, GRID))
    return each(lambda x: F.interpolate(x, size=(size, size), mode="bilinear"), coarse)


@torch.no_grad()
def upper_motion(flow: Tensor, pictures: Tensor, masked_target: Tensor) -> Tensor:
    """By how many pixels the upper halves of the references, moved, are still off, cell by cell: (B, N, 2, 4, 16).

    Lucas and Kanade's least squares, from coarse to fine; a pixel that differs much counts little, and a cell without
    structure stays where it is.

    Args:
        flow: (B, N, 2, S, S) in pixels
        pictures: of the references, (1 or B, N, 3, S, S), RGB in [0, 1]
        masked_target: (B, 3, S, S), likewise, of which the upper half is looked at
    """
    size, middle = flow.shape[-1], flow.shape[-1] // 2
    grey, target = pictures.mean(2, keepdim=True), masked_target[:, None, :, :middle].mean(2, keepdim=True)
    grid = sampling_grid(flow, True)[..., :middle, :]  # (B, N, 2, S/2, S)
    left = flow.new_zeros(*flow.shape[:3], *CELLS)
    for scale in SCALES:
        moved = each(lambda x: F.interpolate(x, size=(middle, size), mode="bilinear"), left) * 2 / size
        shrink = nn.AvgPool2d(scale)
        seen, wanted = each(shrink, warp(grey, grid + moved, True)), each(shrink, target)  # (B, N, 1, h, w)
        down, right = torch.gradient(seen, spacing=float(scale), dim=(-2, -1))
        rest = wanted - seen
        squares = right * right + FLATNESS, right * down, down * down + FLATNESS
        weighted = torch.cat([*squares, right * rest, down * rest], dim=2) / (rest.abs() + 2 * NOISE)  # (B, N, 5, h, w)
        sums = each(lambda x: F.avg_pool2d(F.adaptive_avg_pool2d(x, CELLS), 3, 1, 1, count_include_pad=False), weighted)
        xx, xy, yy, x, y = sums.unbind(2)  # (B, N, 4, 16)
        step = torch.stack([yy * x - xy * y, xx * y - xy * x], dim=2) / (xx * yy - xy * xy)[:, :, None]
        left = left + step.clamp(-LONGEST, LONGEST)
    return left


def off_the_mouth(landmarks: Tensor, like: Tensor) -> Tensor:
    """From 0 at the lips of landmarks (B, 131, 2) in the crop to 1 far from them: (B, 1, H, W), as pictures `like`."""
    from_lips = _distances(landmarks[:, LIP_SLICE]).amin(-1).view(-1, 1, GRID, GRID)
    return 1 - F.interpolate((-((from_lips / MOUTH) ** 2)).exp(), size=like.shape[-2:], mode="bilinear")


def _distances(points: Tensor) -> Tensor:
    """From the centres of the grid's cells, row by row, to points (B, K, 2) in the crop: (B, G*G, K) in its sides."""
    centres = (torch.arange(GRID, device=points.device) + 0.5) / GRID
    places = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).flatten(0, 1)  # (G*G, 2)
    # Not by a matrix product: in TF32 the flow would be off by up to a pixel.
    return torch.cdist(places[None], points, compute_mode="donot_use_mm_for_euclid_dist")
