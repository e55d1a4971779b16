"""Lite renderer for CPUs: narrower, with an initial motion, a residual output and detail from larger references.

Not in the paper.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.configs import RendererConfig
from models.layers import resize, zero_init
from models.lite import LITE
from models.lite.initial_motion import InitialMotion
from models.motion_field import AlignedReferences, Motion, ReferenceFeatures, half_size
from models.renderer import Renderer, RendererOutput

SHARPENING = 0.3  # strength of unsharp masking, which undoes the blur of warping and averaging references


@dataclass(frozen=True)
class LiteRendererConfig(RendererConfig):
    """Sizes of the lite renderer."""

    sketch_channels: int = 1
    shallow: int = 8
    deep: int = 64
    alignment_deep: int = 32
    modulation: int = 32
    style_hidden: int = 32
    kernel: int = 3
    audio_width: int = 8
    candidates: int = 25
    """Frames from which a target's references are chosen, the nearest first; 0: references are random in training."""
    mouth_decision: float = 1.5
    """Power, less 1, to which the mouth's reference weights are raised: the mean of five references is blurred."""


class LiteRenderer(Renderer):
    """Refines an initial motion, and draws a change of the aligned references; initially none."""

    sampling = LITE
    config: LiteRendererConfig

    def __init__(self, config: LiteRendererConfig):
        super().__init__(config)
        zero_init(self.translation.to_rgb)
        if self.motion_field is not None:
            zero_init(self.motion_field.flow)

    def build_alignment(self) -> None:
        super().build_alignment()
        self.initial_motion = InitialMotion() if self.config.use_warping else None

    def predict_motion(
        self, features: ReferenceFeatures, sketches: Tensor, masked_target: Tensor, landmarks: Tensor | None
    ) -> Motion | None:
        """Refines the initial motion, from features that are already warped by it."""
        if self.motion_field is None or self.initial_motion is None:
            return None
        if landmarks is None or features.landmarks is None:
            raise ValueError("the lite renderer needs the landmarks of the target and of the references")
        with torch.no_grad():  # it was trained before, on its own
            initial = self.initial_motion(
                landmarks, features.landmarks, features.images, masked_target, self.config.mouth_decision
            )
        deep = LITE.warp(features.deep.float(), half_size(LITE.grid(initial.flow)))
        refinement = self.motion_field(deep, sketches)
        return Motion(initial.flow + refinement.flow, initial.weight * refinement.weight)

    def translate(self, masked_target: Tensor, sketches: Tensor, references: AlignedReferences, mel: Tensor) -> Tensor:
        """Adds the translation's logits to those of [upper half of the target, lower half of the references]."""
        logits = self.translation(masked_target, sketches, references, mel)
        upper = slice(self.config.size // 2)
        known = references.image.expand_as(masked_target).clone()
        known[:, :, upper] = masked_target[:, :, upper]
        return (logits + known.clamp(0.01, 0.99).logit()).sigmoid()

    def sharpen(self, output: RendererOutput, pictures: Tensor) -> Tensor:
        """Enlarges the face k times, and gives its lower half the detail of larger reference pictures.

        The larger references are aligned by the enlarged motion and sharpened. The translation's change of the small
        ones is then enlarged and added.

        Args:
            output: from `render`, with warping
            pictures: the references in the same order, (B, N, 3, k*H, k*W), RGB in [0, 1]

        Returns:
            (B, 3, k*H, k*W), RGB in [0, 1]
        """
        assert output.motion is not None
        size = pictures.shape[-1]
        flow = enlarge_lower_half(output.motion.flow.float() * (size / self.config.size), size)
        weight = enlarge_lower_half(output.motion.weight.float(), size)
        grid = LITE.grid(flow, top=size // 2)
        aligned = LITE.aggregate(pictures, grid, weight, LITE.image_mode)
        blurred = F.avg_pool2d(aligned, 3, stride=1, padding=1, count_include_pad=False)
        aligned = aligned + SHARPENING * (aligned - blurred)
        change = enlarge_lower_half(output.face - output.warped_reference, size)
        upper = resize(output.face, size)[..., : size // 2, :]
        return torch.cat([upper, (aligned + change).clamp(0, 1)], dim=2)


def enlarge_lower_half(x: Tensor, size: int) -> Tensor:
    """Returns the lower half of `resize(x, size)`: (..., S, S) -> (..., size/2, size)."""
    rows = x.shape[-2] // 2 + 1  # one more than half, for interpolation
    enlarged = resize(x[..., -rows:, :], (rows * size // x.shape[-2], size))
    return enlarged[..., -size // 2 :, :]
