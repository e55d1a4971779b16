"""Terms of the lite preset, which are not in the paper: lip opening, pixels, and the initial motion."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.landmark import LandmarkLossConfig, landmark_loss, mean_or_zero
from losses.render import RenderLoss, RenderLossConfig, Terms

# Openings are fractions of the crop's side.
SMOOTHING = 1e-4  # standard deviation below which the square root is smoothed, so that still lips have a gradient
TOUCHING = 0.01  # opening below which the true lips touch
PSNR_EPS = 1e-8


@dataclass(frozen=True)
class LiteLandmarkLossConfig(LandmarkLossConfig):
    """Weights of the terms; L_1 has weight 1."""

    velocity: float = 0.1
    """Weight of the continuity term L_c, the paper's lambda_c."""
    openness: float = 8.0
    """Weight of the error of the lips' opening, outer and inner. Without it, mouths hardly open or close."""
    closure: float = 2.0
    """Extra weight of openness where the true lips touch. Without it, ambiguous audio leaves the mouth ajar."""
    openness_speed: float = 4.0
    """Weight of the error of the opening's change from frame to frame."""
    articulation: float = 16.0
    """Weight of the error of the opening's spread in a window. Without it, ambiguous audio hardly moves the mouth."""


def lite_landmark_loss(
    lip: Tensor,
    jaw: Tensor,
    true_lip: Tensor,
    true_jaw: Tensor,
    config: LiteLandmarkLossConfig,
    lip_pairs: Sequence[tuple[int, int]],
) -> Terms:
    """Computes the paper's terms and those of the lips' opening, unweighted, and their weighted sum L.

    Args:
        lip: predicted, (B, T, 40, 2)
        jaw: predicted, (B, T, 17, 2)
        true_lip: as `lip`
        true_jaw: as `jaw`
        config: weights of the terms
        lip_pairs: K pairs of lip points (upper, lower), all along the lips; given a single pair, the network would
            move only those two points
    """
    paper = landmark_loss(lip, jaw, true_lip, true_jaw, config)
    opening, true_opening = _openings(lip, true_lip, lip_pairs)  # (B, T, K)
    error = opening - true_opening
    weight = 1 + config.closure * (true_opening < TOUCHING)
    spread_error = _spread(opening) - _spread(true_opening)  # (B, K)
    terms = {
        "openness": (weight * error.abs()).mean(),
        "openness_speed": mean_or_zero(error.diff(dim=1).abs()),
        "articulation": spread_error.abs().mean(),
    }
    weighted = [getattr(config, name) * value for name, value in terms.items()]
    return {**paper, **terms, "L": paper["L"] + torch.stack(weighted).sum()}


def _openings(lip: Tensor, true_lip: Tensor, lip_pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Measures the predicted and true opening of each pair along the window's mean direction of true opening.

    Plain distances would also grow when lips are sheared instead of opened.

    Returns:
        (2, B, T, K)
    """
    both = torch.stack([lip, true_lip]).float()  # (2, B, T, 40, 2)
    gaps = both[..., torch.tensor(lip_pairs), :].diff(dim=-2)  # (2, B, T, K, 1, 2), from the upper to the lower lip
    direction = F.normalize(gaps[1].mean(dim=(1, 2), keepdim=True), dim=-1)  # (B, 1, 1, 1, 2)
    return (gaps * direction).sum((-2, -1))


def _spread(opening: Tensor) -> Tensor:
    """Returns the standard deviation over the window: (B, T, K) -> (B, K)."""
    return (opening.var(dim=1, correction=0) + SMOOTHING**2).sqrt()


@dataclass(frozen=True)
class LiteRenderLossConfig(RenderLossConfig):
    """Weights of the terms, and VGG's layers, chosen to sharpen the mouth at little cost."""

    adversarial: float = 0.0
    """Weight of L_g."""
    feature_matching: float = 0.0
    """Weight of L_f."""
    pixel: float = 400.0
    """Weight of the mean absolute difference of the face, and of the warped references, from the target."""
    layers: tuple[int, ...] = (1, 2, 3)
    """VGG blocks whose first ReLU is compared."""

    @property
    def weights(self) -> dict[str, float]:
        return {**super().weights, "pixel": self.pixel}


class LiteRenderLoss(RenderLoss):
    """The paper's loss and a pixel term. VGG sees the lower half only, as the upper half is the target's own."""

    def terms(self, face: Tensor, warped: Tensor, target: Tensor, warming_up: bool) -> Terms:
        terms = super().terms(face, warped, target, warming_up)
        pictures = []
        if not warming_up:
            pictures.append(face)
        if self.use_warping:
            pictures.append(warped)
        terms["pixel"] = torch.stack([F.l1_loss(picture.float(), target) for picture in pictures]).sum()
        return terms

    def vgg_features(self, picture: Tensor) -> list[Tensor]:
        return super().vgg_features(picture.chunk(2, dim=2)[1])


def initial_motion_loss(warped: Tensor, weight: Tensor, target: Tensor, correction: Tensor, decay: float) -> Tensor:
    """Adds up the mean negative PSNR (dB) of the warped references, the one of their weighted mean, and an L2 penalty.

    Args:
        warped: each reference, warped by the initial motion, (B, N, 3, h, W), RGB in [0, 1]; the lower half
        weight: weight of each reference, (B, N, 1, h, W); the sum over references is 1
        target: (B, 3, h, W), RGB in [0, 1]; the lower half
        correction: weights of the correction layer; without the penalty it overfits the training identities
        decay: penalty in dB on the sum of their squares
    """
    average = (warped * weight).sum(1, keepdim=True)
    errors = [(pictures - target[:, None]).square().mean((2, 3, 4)) for pictures in (warped, average)]  # (B, N or 1)
    negative_psnr = 10 * torch.stack([(error + PSNR_EPS).log10().mean() for error in errors]).sum()
    return negative_psnr + decay * correction.square().sum()
