"""Loss of stage 1 (paper, section 3.1.2, equations 10 to 12)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LandmarkLossConfig:
    """Weights of the terms; L_1 has weight 1."""

    velocity: float = 1.0
    """Weight of the continuity term L_c, the paper's lambda_c."""


def landmark_loss(
    lip: Tensor, jaw: Tensor, true_lip: Tensor, true_jaw: Tensor, config: LandmarkLossConfig
) -> dict[str, Tensor]:
    """Computes the scalars L_1 and L_c, unweighted, and their weighted sum L.

    As in the released code, L_1 is a mean over the coordinates (in the paper a sum), and L_c has one norm over lip and
    jaw (in the paper one norm each).

    Args:
        lip: predicted, (B, T, 40, 2)
        jaw: predicted, (B, T, 17, 2)
        true_lip: as `lip`
        true_jaw: as `jaw`
        config: weights of the terms
    """
    error = torch.cat([lip - true_lip, jaw - true_jaw], dim=-2).float().flatten(-2)  # (B, T, 114)
    l_1 = error.abs().mean()  # equation 10
    displacement_error = error.diff(dim=1)  # (B, T-1, 114)
    l_c = mean_or_zero(torch.linalg.vector_norm(displacement_error, dim=-1))  # equation 11
    return {"L_1": l_1, "L_c": l_c, "L": l_1 + config.velocity * l_c}  # equation 12


def mean_or_zero(values: Tensor) -> Tensor:
    """Returns the mean, or 0 if there are no values: a single frame has no displacement."""
    return values.mean() if values.numel() else values.sum()
