"""Loss of stage 1: distance of the landmarks and of their movement (paper, equations 9 and 10)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LandmarkLossConfig:
    velocity: float = 1.0
    """Weight of the continuity term, the paper's lambda_c."""


def landmark_loss(
    lip: Tensor, jaw: Tensor, true_lip: Tensor, true_jaw: Tensor, config: LandmarkLossConfig
) -> dict[str, Tensor]:
    """The terms and their weighted sum as scalars, named "l1", "velocity" and "total".

    Args:
        lip: predicted (B, T, 40, 2)
        jaw: predicted (B, T, 17, 2)
        true_lip: as `lip`
        true_jaw: as `jaw`
        config: weights
    """
    difference = torch.cat([lip - true_lip, jaw - true_jaw], dim=-2).float().flatten(-2)  # (B, T, 114)
    l1 = difference.abs().mean()
    # The displacement's error is the displacement of the error. No frame pair (T = 1) has no velocity.
    pairs = difference.diff(dim=1)  # (B, T-1, 114)
    velocity = torch.linalg.vector_norm(pairs, dim=-1).mean() if pairs.numel() else l1.new_zeros(())
    return {"l1": l1, "velocity": velocity, "total": l1 + config.velocity * velocity}
