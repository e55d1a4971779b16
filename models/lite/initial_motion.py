"""Initial motion of each reference, from landmarks and the target's visible upper half. Not in the paper."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from face.landmarks import LIP_SLICE
from models.layers import map_references, resize, zero_init
from models.lite import LITE
from models.lite.reference_weights import NOISE, ReferenceWeights, alignment_cues, local_mean
from models.motion_field import Motion

# Distances are fractions of the crop's side, unless they are in pixels.
GRID = 32  # cells per side of the grid on which the landmark flow is computed
MIN_DISTANCE = 0.02  # landmarks nearer than this are averaged
MOUTH_RADIUS = 0.15  # distance from the lips within which the upper half says little about the motion
RESIDUAL_CELLS = (4, 16)  # rows and columns of cells in which the upper half's residual motion is estimated
SCALES = (4, 2)  # factors by which images are shrunk, from coarse to fine
MAX_STEP = 3.0  # pixels: longest Lucas-Kanade step
MIN_SLOPE = 5e-5  # squared gradient below which a cell has no structure
FLOW_CELLS = 8  # cells per side of the flow that the correction reads
CORRECTION_CELLS = 16  # cells per side of the correction
INPUT_UNIT = 1 / 64  # unit of the correction's input
OUTPUT_UNIT = 1 / 16  # unit of its output; a longer one learns faster


class InitialMotion(nn.Module):
    """Landmark flow, a learned correction of it, and reference weights.

    Landmarks are accurate to a few tenths of a pixel only, and the background moves differently from the face. The
    residual motion is therefore measured in the upper half (Lucas-Kanade). A zero-initialised, mirror-equivariant
    linear layer extrapolates it to the lower half, except the mouth.
    """

    def __init__(self):
        super().__init__()
        inputs = 2 * (RESIDUAL_CELLS[0] * RESIDUAL_CELLS[1] + FLOW_CELLS**2)
        self.correction = nn.Linear(inputs, 2 * CORRECTION_CELLS**2)
        zero_init(self.correction)
        self.reference_weights = ReferenceWeights()

    def forward(
        self,
        landmarks: Tensor,
        reference_landmarks: Tensor,
        images: Tensor,
        masked_target: Tensor,
        mouth_decision: float = 0,
    ) -> Motion:
        """Computes the motion of B*N pairs, always in float32: bfloat16 would round the flow by a fraction of a pixel.

        Args:
            landmarks: the target's, (B, 131, 2), x, y in [0, 1] of the crop
            reference_landmarks: (1 or B, N, 131, 2), likewise
            images: reference images, (1 or B, N, 3, S, S), RGB in [0, 1]
            masked_target: (B, 3, S, S), RGB in [0, 1]; only the upper half is read
            mouth_decision: the mouth's weights are raised to the power 1 + mouth_decision
        """
        with torch.autocast(landmarks.device.type, enabled=False):
            images = images.float()
            size = images.shape[-1]
            off_mouth = off_mouth_mask(landmarks, size)  # (B, 1, S, S)
            flow = landmark_flow(landmarks, reference_landmarks, size)  # (B, N, 2, S, S)
            residual = residual_motion(flow, images, masked_target)
            flow = flow + self.correct(flow, residual) * off_mouth[:, None]
            cues = alignment_cues(flow, landmarks, reference_landmarks, images, masked_target, off_mouth)
            decision = mouth_decision * (1 - off_mouth)[:, None]
            return Motion(flow, self.reference_weights(cues, decision))

    def correct(self, flow: Tensor, residual: Tensor) -> Tensor:
        """Computes the correction (B, N, 2, S, S) of a flow, all in pixels.

        The linear layer is averaged with its mirror image, which halves the weights to learn and gains 0.03 dB.

        Args:
            flow: the landmark flow, (B, N, 2, S, S)
            residual: the motion of the upper half that the flow misses, (B, N, 2, 4, 16)
        """
        size = flow.shape[-1]
        flow_cells = map_references(nn.AdaptiveAvgPool2d(FLOW_CELLS), flow)
        plain = self._correct_cells(flow_cells, residual, size)
        mirrored = mirror(self._correct_cells(mirror(flow_cells), mirror(residual), size))
        return resize((plain + mirrored) / 2, size)

    def _correct_cells(self, flow: Tensor, residual: Tensor, size: int) -> Tensor:
        """Applies the linear layer: (B, N, 2, 8, 8) and (B, N, 2, 4, 16) -> (B, N, 2, 16, 16)."""
        inputs = torch.cat([residual.flatten(2), flow.flatten(2)], dim=2) / (INPUT_UNIT * size)
        return OUTPUT_UNIT * size * self.correction(inputs).unflatten(-1, (2, CORRECTION_CELLS, CORRECTION_CELLS))


def mirror(motion: Tensor) -> Tensor:
    """Returns the motion (..., 2, H, W) that horizontally flipped images have."""
    right, down = motion.flip(-1).split(1, dim=-3)
    return torch.cat([-right, down], dim=-3)


def landmark_flow(target: Tensor, references: Tensor, size: int) -> Tensor:
    """Interpolates each reference's landmark displacements by inverse-distance weighting: (B, N, 2, S, S) in pixels.

    The flow leads from the target to the reference. Weights are inverse fourth powers of the distance.

    Args:
        target: (B, 131, 2), x, y in [0, 1] of the crop
        references: (1 or B, N, 131, 2), likewise
        size: side S of the crop in pixels
    """
    weights = (_distances(target) ** 2 + MIN_DISTANCE**2) ** -2
    weights = F.normalize(weights, p=1, dim=-1)  # (B, G*G, 131)
    displacement = (references - target[:, None]) * size  # (B, N, 131, 2)
    coarse = torch.einsum("bgk,bnkc->bncg", weights, displacement).unflatten(-1, (GRID, GRID))
    return resize(coarse, size)


@torch.no_grad()
def residual_motion(flow: Tensor, images: Tensor, masked_target: Tensor) -> Tensor:
    """Measures the motion that a flow misses between the upper halves of references and target.

    Lucas-Kanade from coarse to fine, with robust weights; a cell without structure does not move.

    Args:
        flow: (B, N, 2, S, S) in pixels
        images: reference images, (1 or B, N, 3, S, S), RGB in [0, 1]
        masked_target: (B, 3, S, S), RGB in [0, 1]; only the upper half is read

    Returns:
        (B, N, 2, 4, 16) in pixels
    """
    size = flow.shape[-1]
    middle = size // 2
    grey = images.mean(2, keepdim=True)  # (1 or B, N, 1, S, S)
    grey_target = masked_target[:, None, :, :middle].mean(2, keepdim=True)  # (B, 1, 1, S/2, S)
    grid = LITE.grid(flow)[..., :middle, :]  # (B, N, 2, S/2, S)
    motion = flow.new_zeros(*flow.shape[:3], *RESIDUAL_CELLS)
    for scale in SCALES:
        shrink = nn.AvgPool2d(scale)
        shift = resize(motion, (middle, size)) * 2 / size
        warped = map_references(shrink, LITE.warp(grey, grid + shift))  # (B, N, 1, h, w)
        motion = motion + _lucas_kanade(warped, map_references(shrink, grey_target), scale)
    return motion


def _lucas_kanade(warped: Tensor, target: Tensor, scale: int) -> Tensor:
    """Takes a least-squares step (B, N, 2, 4, 16) in pixels, from images (B, N or 1, 1, h, w) shrunk by `scale`."""
    down, right = torch.gradient(warped, spacing=float(scale), dim=(-2, -1))
    error = target - warped
    products = (right * right + MIN_SLOPE, right * down, down * down + MIN_SLOPE, right * error, down * error)
    weighted = torch.cat(products, dim=2) / (error.abs() + 2 * NOISE)
    cells = local_mean(map_references(nn.AdaptiveAvgPool2d(RESIDUAL_CELLS), weighted), 3)
    xx, xy, yy, x, y = cells.split(1, dim=2)  # (B, N, 1, 4, 16) each
    solution = torch.cat([yy * x - xy * y, xx * y - xy * x], dim=2) / (xx * yy - xy * xy)
    return solution.clamp(-MAX_STEP, MAX_STEP)


def off_mouth_mask(landmarks: Tensor, size: int) -> Tensor:
    """Returns a mask (B, 1, S, S) of side `size`: 0 at the lips of landmarks (B, 131, 2), 1 far from them."""
    from_lips = _distances(landmarks[:, LIP_SLICE]).amin(-1).view(-1, 1, GRID, GRID)
    mouth = torch.exp(-((from_lips / MOUTH_RADIUS) ** 2))
    return 1 - resize(mouth, size)


def _distances(points: Tensor) -> Tensor:
    """Returns the distances of the grid's cells, row by row, from points (B, K, 2) in the crop: (B, G*G, K)."""
    centres = (LITE.grid(points.new_zeros(2, GRID, GRID)) + 1) / 2
    # cdist must not use a matrix product: in TF32 the flow would be off by up to a pixel.
    return torch.cdist(centres.flatten(1).T[None], points, compute_mode="donot_use_mm_for_euclid_dist")
