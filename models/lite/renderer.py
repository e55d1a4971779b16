"""Lite renderer for CPUs: narrower, with an initial motion, a residual output and detail from larger references.

Not in the paper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.configs import RendererConfig
from models.layers import resize, zero_init
from models.lite.initial_motion import InitialMotion
from models.lite.sampling import LITE
from models.motion_field import AlignedReferences, Motion, ReferenceFeatures, aggregate, half_size, sampling_grid, warp
from models.renderer import Renderer, RendererOutput


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
    """The references of a target are the nearest of so many frames."""


@dataclass(frozen=True)
class LiteReferenceFeatures(ReferenceFeatures):
    """Features of the references, and their landmarks."""

    landmarks: Tensor  # (B, N, 131, 2), x, y in [0, 1] of the crop


class LiteRenderer(Renderer):
    """Refines an initial motion, and draws the difference to the aligned references, starting from zero difference."""

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

    def encode_references(
        self, images: Tensor, sketches: Tensor, landmarks: Tensor | None = None
    ) -> LiteReferenceFeatures:
        """As the paper's; the landmarks are required."""
        assert landmarks is not None, "the lite renderer needs the references' landmarks"
        features = super().encode_references(images, sketches)
        return LiteReferenceFeatures(features.images, features.shallow, features.deep, landmarks)

    def predict_motion(
        self, features: ReferenceFeatures, sketches: Tensor, masked_target: Tensor, landmarks: Tensor | None
    ) -> Motion | None:
        """The initial motion, refined from features that it has warped already."""
        if self.motion_field is None or self.initial_motion is None:
            return None
        assert isinstance(features, LiteReferenceFeatures)
        assert landmarks is not None, "the lite renderer needs the target's landmarks"
        with torch.no_grad():  # trained beforehand, in a stage of its own
            initial = self.initial_motion(landmarks, features.landmarks, features.images, masked_target)
        grid = half_size(sampling_grid(initial.flow, LITE))
        deep = warp(features.deep.float(), grid, LITE).to(features.deep.dtype)
        refinement = self.motion_field(deep, sketches)
        return Motion(initial.flow + refinement.flow, initial.weight * refinement.weight)

    def translate(self, masked_target: Tensor, sketches: Tensor, references: AlignedReferences, mel: Tensor) -> Tensor:
        """Adds the translation's logits to those of [upper half of the target, lower half of the references]."""
        logits = self.translation(masked_target, sketches, references, mel)
        upper = masked_target.chunk(2, dim=2)[0]
        lower = references.image.expand_as(masked_target).chunk(2, dim=2)[1]
        known = torch.cat([upper, lower], dim=2).float()
        return (logits + known.clamp(0.01, 0.99).logit()).sigmoid()

    def sharpen(self, output: RendererOutput, pictures: Tensor) -> Tensor:
        """Enlarges the face k times; its lower half gets the detail of larger reference pictures.

        The references are aligned once more, at the larger size, and the translation's change of them is added.

        Args:
            output: of `render`, with warping
            pictures: the references in the same order, (B, N, 3, k*H, k*W), RGB in [0, 1]

        Returns:
            (B, 3, k*H, k*W), RGB in [0, 1]
        """
        assert output.motion is not None
        size = pictures.shape[-2:]
        upper = resize(output.face, size).chunk(2, dim=2)[0]
        change = resize(output.face - output.warped_reference, size).chunk(2, dim=2)[1]
        lower = change + align_lower_half(pictures, output.motion)
        return torch.cat([upper, lower.clamp(0, 1)], dim=2)


def align_lower_half(pictures: Tensor, motion: Motion) -> Tensor:
    """Warps and averages pictures that are k times the motion's size: (B, N, 3, k*H, k*W) -> (B, 3, k*H/2, k*W)."""
    size = pictures.shape[-2:]
    middle = size[0] // 2
    flow = resize(motion.flow.float(), size) * (size[1] // motion.flow.shape[-1])
    grid = sampling_grid(flow, LITE)[..., middle:, :]
    weight = resize(motion.weight.float(), size)[..., middle:, :]
    return aggregate(pictures, grid, weight, LITE, LITE.images)
