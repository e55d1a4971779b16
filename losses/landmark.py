"""Loss of stage 1: distance of the landmarks and of their movement (paper, equations 9 and 10)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1e-4  # openness below which the square root is rounded off: lips that stay have a gradient too
TOUCHING = 0.01  # of the crop's side: points of the lips that are truly nearer than this touch


@dataclass(frozen=True)
class LandmarkLossConfig:
    """Weights of the terms beside L1. The defaults are the paper's."""

    velocity: float = 1.0
    """Continuity term, the paper's lambda_c."""
    openness: float = 0.0
    """Distance of the lips, outer and inner contour; not in the paper: against mouths that hardly open or close."""
    closure: float = 0.0
    """So many times more the openness counts of points that truly touch; not in the paper: where the sound leaves a
    doubt whether lips close, they would stay a little open."""
    openness_speed: float = 0.0
    """Its change from frame to frame; not in the paper."""
    articulation: float = 0.0
    """How far the lips open and close within a window (standard deviation of the openness); not in the paper: where
    the sound leaves a doubt, the other terms are least for a mouth that hardly moves."""


def landmark_loss(
    lip: Tensor, jaw: Tensor, true_lip: Tensor, true_jaw: Tensor, config: LandmarkLossConfig,
    openings: Sequence[tuple[int, int]] = (),
) -> dict[str, Tensor]:  # fmt: skip
    """The terms as scalars, unweighted, and their weighted sum, under the paper's names where it has one: "L_1", "L_c",
    the openness terms where one has a weight, "L".

    Args:
        lip: predicted (B, T, 40, 2)
        jaw: predicted (B, T, 17, 2)
        true_lip: as `lip`
        true_jaw: as `jaw`
        config: weights
        openings: K pairs of lip points (upper, lower); how far they are apart is the openness, and its terms are means
            over pairs. All along the lips: of their middle alone a network would move that and nothing else
    """
    difference = torch.cat([lip - true_lip, jaw - true_jaw], dim=-2).float().flatten(-2)  # (B, T, 114)
    # The displacement's error is the displacement of the error.
    movement = torch.linalg.vector_norm(difference.diff(dim=1), dim=-1)  # (B, T-1)
    l1, terms = difference.abs().mean(), {"velocity": _mean(movement)}
    if config.openness or config.openness_speed or config.articulation:
        upper, lower = map(list, zip(*openings, strict=True))
        gap, true_gap = ((x[..., lower, :] - x[..., upper, :]).float() for x in (lip, true_lip))  # (B, T, K, 2)
        # As the true lips part in this window: plain distances also grow when lips are sheared in place of opened.
        down = F.normalize(true_gap.mean(dim=(1, 2), keepdim=True), dim=-1)  # (B, 1, 1, 2)
        mine, true = ((x * down).sum(-1) for x in (gap, true_gap))  # (B, T, K)
        weight = 1 + config.closure * (true < TOUCHING)  # (B, T, K)
        terms["openness"] = (weight * (mine - true).abs()).mean()
        terms["openness_speed"] = _mean((mine - true).diff(dim=1).abs())
        my_spread, spread = ((x.var(dim=1, correction=0) + SMOOTH**2).sqrt() for x in (mine, true))  # (B, K)
        terms["articulation"] = (my_spread - spread).abs().mean()
    total = l1 + torch.stack([getattr(config, name) * value for name, value in terms.items()]).sum()
    return {"L_1": l1, "L_c": terms.pop("velocity"), **terms, "L": total}


def _mean(values: Tensor) -> Tensor:
    """The mean, or 0 of nothing: a single frame has no movement."""
    return values.mean() if values.numel() else values.sum()
