"""Loss of stage 2 (paper, section 3.2.3, equations 17 to 20)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.adversarial import generator_losses
from losses.perceptual import LAYERS, VGG19, perceptual, style


@dataclass(frozen=True)
class RenderLossConfig:
    """Weights of the terms, and the warm-up. The defaults are the paper's."""

    warp: float = 2.5
    """Weight of L_w, the perceptual distance of the warped references: trains the alignment."""
    perceptual: float = 4.0
    """Weight of L_r, the perceptual distance of the face."""
    style: float = 1000.0
    """Weight of L_s, the style distance of the face."""
    adversarial: float = 0.25
    """Weight of L_g."""
    feature_matching: float = 2.5
    """Weight of L_f."""
    warmup_epochs: int = 25
    """Epochs at the start that train the alignment alone."""

    @property
    def vgg_layers(self) -> tuple[int, ...]:
        """VGG blocks whose first ReLU is compared."""
        return LAYERS

    @property
    def needs_vgg(self) -> bool:
        return bool(self.warp or self.perceptual or self.style)

    @property
    def needs_discriminator(self) -> bool:
        return bool(self.adversarial or self.feature_matching)


class RenderLoss:
    """The generator's loss as named scalars. VGG sees each picture once, and the target without a graph."""

    def __init__(
        self,
        config: RenderLossConfig,
        vgg: VGG19 | None,
        discriminator: nn.Module | None = None,
        use_warping: bool = True,
    ):
        """`vgg` and `discriminator` may be None where none of their terms has a weight.

        `use_warping` False: there is no alignment to train, and terms of the references are left out (Table 4).
        """
        if (config.needs_vgg and vgg is None) or (config.needs_discriminator and discriminator is None):
            raise ValueError("the loss has terms that need VGG-19 or a discriminator, but there is none")
        self.config = config
        self.vgg = vgg
        self.discriminator = discriminator
        self.use_warping = use_warping
        self.weights = {
            "L_w": config.warp,
            "L_r": config.perceptual,
            "L_s": config.style,
            "L_g": config.adversarial,
            "L_f": config.feature_matching,
        }

    def __call__(self, face: Tensor, warped: Tensor, target: Tensor, warming_up: bool = False) -> dict[str, Tensor]:
        """The terms that have a weight, unweighted, and L, their weighted sum (equation 20).

        Args:
            face: (B, 3, H, W), RGB in [0, 1]
            warped: warped, averaged references, as `face`
            target: the true, unmasked face, as `face`
            warming_up: only the terms of `warped`
        """
        terms = self.terms(face, warped, target, warming_up)
        terms = {name: value for name, value in terms.items() if self.weights[name]}
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return {**terms, "L": total}

    def terms(self, face: Tensor, warped: Tensor, target: Tensor, warming_up: bool) -> dict[str, Tensor]:
        """The unweighted terms by name."""
        terms: dict[str, Tensor] = {}
        if self.vgg is not None:
            terms |= self._vgg_terms(self.compared(face, warped, warming_up), target)
        if self.discriminator is not None and not warming_up:
            terms["L_g"], terms["L_f"] = generator_losses(self.discriminator, face, target)
        return terms

    def compared(self, face: Tensor, warped: Tensor, warming_up: bool) -> dict[str, Tensor]:
        """The pictures that are compared with the target."""
        pictures = {}
        if not warming_up:
            pictures["face"] = face
        if self.use_warping:
            pictures["warped"] = warped
        return pictures

    def vgg_input(self, picture: Tensor) -> Tensor:
        """What VGG sees of a picture."""
        return picture

    def _vgg_terms(self, pictures: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        full, true_full = self._features(pictures, target, scale=1)
        half, true_half = self._features(pictures, target, scale=2)
        distances = {name: perceptual(full[name], true_full) + perceptual(half[name], true_half) for name in pictures}
        terms = {}
        if "warped" in pictures:
            terms["L_w"] = distances["warped"]  # equation 17
        if "face" in pictures:
            terms["L_r"] = distances["face"]  # equation 18
            terms["L_s"] = style(full["face"], true_full)  # equation 19
        return terms

    def _features(
        self, pictures: dict[str, Tensor], target: Tensor, scale: int
    ) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
        """VGG features of the pictures, in one pass, and of the target, without a graph, all shrunk by `scale`."""
        assert self.vgg is not None
        with torch.no_grad():
            true = self.vgg(F.avg_pool2d(self.vgg_input(target), scale))
        stacked = torch.cat([F.avg_pool2d(self.vgg_input(picture), scale) for picture in pictures.values()])
        layers = [layer.split(len(target)) for layer in self.vgg(stacked)]
        features = {name: [layer[index] for layer in layers] for index, name in enumerate(pictures)}
        return features, true
