"""Loss of stage 2: warping, reconstruction, style, adversarial and feature matching (paper, equations 15 to 21)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.adversarial import generator_losses
from losses.perceptual import LAYERS, VGG19, perceptual, style

SYMBOLS = {"warp": "L_w", "perceptual": "L_r", "style": "L_s", "adversarial": "L_g", "feature_matching": "L_f"}


@dataclass(frozen=True)
class RenderLossConfig:
    """Weights of the terms, and where they are taken. The defaults are the paper's."""

    warp: float = 2.5
    """Perceptual distance of the aligned, averaged references: trains the alignment."""
    perceptual: float = 4.0
    style: float = 1000.0
    adversarial: float = 0.25
    feature_matching: float = 2.5
    pixel: float = 0.0
    """Mean absolute difference of output and target, and of aligned references and target; not in the paper."""
    start_epochs: float = 0.0
    """Quick epochs before all others that train where the alignment starts (`landmark_start`), and nothing else does:
    PSNR of each moved reference and of their average, lower half; not in the paper."""
    start_decay: float = 0.003
    """What the square of each weight of its correction costs in dB: else it would fit the persons, not the faces."""
    warmup_epochs: int = 25
    """Epochs at the start that train the alignment alone."""
    layers: tuple[int, ...] = LAYERS
    """VGG blocks whose first ReLU is compared: fewer are faster."""
    region: Literal["full", "lower"] = "full"
    """lower: VGG sees the lower half only, at half the cost; the upper half is the target's own."""

    @property
    def needs_vgg(self) -> bool:
        return bool(self.warp or self.perceptual or self.style)

    @property
    def needs_discriminator(self) -> bool:
        return bool(self.adversarial or self.feature_matching)


class RenderLoss:
    """The generator's loss as named scalars. VGG sees each picture once, and the target without a graph."""

    def __init__(self, config: RenderLossConfig, vgg: VGG19 | None, discriminator: nn.Module | None = None):
        """`vgg` and `discriminator` may be None where the config gives all their terms no weight."""
        if (config.needs_vgg and vgg is None) or (config.needs_discriminator and discriminator is None):
            raise ValueError("the loss has terms that need VGG-19 or a discriminator, but there is none")
        self.config = config
        self.vgg = vgg
        self.discriminator = discriminator

    def __call__(self, face: Tensor, warped: Tensor, target: Tensor, warming_up: bool = False) -> dict[str, Tensor]:
        """Terms that have a weight, unweighted, and their weighted sum, under the paper's names: "L_w", ..., "L".

        The terms of the aligned references fall away where these cannot be trained (no gradient, as without warping).

        Args:
            face: output (B, 3, H, W), RGB in [0, 1]
            warped: aligned, averaged references, as `face`
            target: the true, unmasked face, as `face`
            warming_up: only the terms of the aligned references
        """
        trains_alignment = warped.requires_grad or not torch.is_grad_enabled()
        pictures = ([] if warming_up else [face]) + ([warped] if trains_alignment else [])
        terms: dict[str, Tensor] = {}
        if self.vgg is not None:
            full, both = self._vgg_distances(pictures, target)
            if trains_alignment:
                terms["warp"] = both[-1]
            if not warming_up:
                terms["perceptual"], terms["style"] = both[0], full[0]
        if self.config.pixel:
            terms["pixel"] = torch.stack([F.l1_loss(picture.float(), target) for picture in pictures]).sum()
        if self.discriminator is not None and not warming_up:
            terms["adversarial"], terms["feature_matching"] = generator_losses(self.discriminator, face, target)
        weights = {name: getattr(self.config, name) for name in terms}
        total = torch.stack([weight * terms[name] for name, weight in weights.items() if weight]).sum()
        return {SYMBOLS.get(name, name): terms[name] for name, weight in weights.items() if weight} | {"L": total}

    def _vgg_distances(self, pictures: list[Tensor], target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each picture: its style distance at full size, and its perceptual distance at full and half size."""
        if self.config.region == "lower":
            *pictures, target = (picture.chunk(2, dim=2)[1] for picture in (*pictures, target))
        full, true = self._features(pictures, target)
        # Half the size is bilinear, without antialiasing.
        half, half_true = self._features([F.avg_pool2d(picture, 2) for picture in pictures], F.avg_pool2d(target, 2))
        distances = [perceptual(f, true) + perceptual(h, half_true) for f, h in zip(full, half, strict=True)]
        return [style(f, true) for f in full] if self.config.style else distances, distances

    def _features(self, pictures: list[Tensor], target: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Of each picture, in one pass, and of the target, without a graph."""
        assert self.vgg is not None
        with torch.no_grad():
            true = self.vgg(target)
        layers = [layer.split(len(target)) for layer in self.vgg(torch.cat(pictures))]
        return [list(features) for features in zip(*layers, strict=True)], true
