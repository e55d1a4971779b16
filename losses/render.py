"""Loss of stage 2 (paper, section 3.2.3, equations 17 to 20)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.adversarial import generator_losses
from losses.perceptual import LAYERS, perceptual, style

Terms = dict[str, Tensor]  # scalars by name


@dataclass(frozen=True)
class RenderLossConfig:
    """Weights of the terms. The defaults are the paper's."""

    warp: float = 2.5
    """Weight of L_w, the perceptual distance of the warped references, which trains the alignment."""
    perceptual: float = 4.0
    """Weight of L_r, the perceptual distance of the face."""
    style: float = 1000.0
    """Weight of L_s, the style distance of the face."""
    adversarial: float = 0.25
    """Weight of L_g."""
    feature_matching: float = 2.5
    """Weight of L_f."""
    layers: tuple[int, ...] = LAYERS
    """VGG blocks whose first ReLU is compared; fewer are faster."""

    @property
    def weights(self) -> dict[str, float]:
        """The lambdas of equation 20."""
        return {
            "L_w": self.warp,
            "L_r": self.perceptual,
            "L_s": self.style,
            "L_g": self.adversarial,
            "L_f": self.feature_matching,
        }

    @property
    def needs_vgg(self) -> bool:
        return bool(self.warp or self.perceptual or self.style)

    @property
    def needs_discriminator(self) -> bool:
        return bool(self.adversarial or self.feature_matching)


@dataclass
class RenderLoss:
    """The generator's loss as named scalars. VGG sees each picture once, and the target without a graph."""

    config: RenderLossConfig
    vgg: Any
    """A VGG19, or None if none of its terms has a weight."""
    discriminator: Any = None
    """None if none of its terms has a weight."""
    use_warping: bool = True
    """False: there is no alignment to train, so the terms of the warped references are left out (Table 4)."""

    def __call__(self, face: Tensor, warped: Tensor, target: Tensor, warming_up: bool = False) -> Terms:
        """Computes the terms that have a weight, unweighted, and L, their weighted sum (equation 20).

        Args:
            face: (B, 3, H, W), RGB in [0, 1]
            warped: warped, averaged references, as `face`
            target: the true, unmasked face, as `face`
            warming_up: compute only the terms of `warped`
        """
        weights = self.config.weights
        terms = self.terms(face, warped, target, warming_up)
        terms = {name: value for name, value in terms.items() if weights[name]}
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return {**terms, "L": total}

    def terms(self, face: Tensor, warped: Tensor, target: Tensor, warming_up: bool) -> Terms:
        """Computes the unweighted terms by name."""
        terms = {}
        if self.config.needs_vgg:
            with torch.no_grad():
                true = self.vgg_features(target)
            if self.use_warping:
                terms["L_w"] = perceptual(self.vgg_features(warped), true)  # equation 17
            if not warming_up:
                features = self.vgg_features(face)
                middle = len(features) // 2
                terms["L_r"] = perceptual(features, true)  # equation 18
                terms["L_s"] = style(features[:middle], true[:middle])  # equation 19
        if self.config.needs_discriminator and not warming_up:
            terms["L_g"], terms["L_f"] = generator_losses(self.discriminator, face, target)
        return terms

    def vgg_features(self, picture: Tensor) -> list[Tensor]:
        """Computes phi_i of a picture (B, 3, H, W), at full size and then at half size."""
        return self.vgg(picture) + self.vgg(F.avg_pool2d(picture, 2))
