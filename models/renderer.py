"""Stage 2, landmarks to video: alignment of the references and translation (paper, section 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.configs import RendererConfig
from models.layers import channels_last
from models.motion_field import (
    RELEASED,
    AlignedReferences,
    Motion,
    MotionField,
    ReferenceEncoder,
    ReferenceFeatures,
    align,
    average,
)
from models.translation import Translation


class RendererOutput(NamedTuple):
    """RGB in [0, 1]."""

    face: Tensor  # (B, 3, H, W)
    warped_reference: Tensor  # (B, 3, H, W): the reference images, warped and averaged
    motion: Motion | None  # None without warping


class Renderer(nn.Module):
    """Draws a face from its sketches, its unmasked upper half, the audio and any number N of reference images.

    RGB in and out; the caller masks the target.
    """

    sampling = RELEASED

    def __init__(self, config: RendererConfig):
        super().__init__()
        self.config = config
        self.build_alignment()
        self.translation = Translation(config)
        self.to(memory_format=torch.channels_last)  # twice as fast on CPU for narrow layers

    def build_alignment(self) -> None:
        """Creates the alignment module G_a."""
        self.reference_encoder = ReferenceEncoder(self.config)
        self.motion_field = MotionField(self.config) if self.config.use_warping else None

    def forward(
        self,
        masked_target: Tensor,
        target_sketches: Tensor,
        reference_images: Tensor,
        reference_sketches: Tensor,
        mel: Tensor,
        landmarks: Tensor | None = None,
        reference_landmarks: Tensor | None = None,
    ) -> RendererOutput:
        """Calls `encode_references`, then `render`, as in training, where each set of references is used once."""
        features = self.encode_references(reference_images, reference_sketches, reference_landmarks)
        return self.render(masked_target, target_sketches, features, mel, landmarks)

    def encode_references(self, images: Tensor, sketches: Tensor, landmarks: Tensor | None = None) -> ReferenceFeatures:
        """Computes the visual features of the references, which a video needs once.

        Args:
            images: I^r (B, N, 3, H, W), RGB in [0, 1]
            sketches: L^r (B, N, 3, H, W), in [0, 1]
            landmarks: (B, N, 131, 2) in the crop, as drawn in the sketches; only subclasses use them
        """
        features = self.reference_encoder(images, sketches[:, :, : self.config.sketch_channels])
        return features._replace(landmarks=landmarks)

    def render(
        self,
        masked_target: Tensor,
        target_sketches: Tensor,
        features: ReferenceFeatures,
        mel: Tensor,
        landmarks: Tensor | None = None,
    ) -> RendererOutput:
        """Draws B frames.

        Args:
            masked_target: I^m (B, 3, H, W), RGB in [0, 1], zero from row H/2 on
            target_sketches: L (B, T, 3, H, W), in [0, 1], that of the target frame in the middle
            features: features of B sets of references, or of one set for all B frames
            mel: (B, 1, 80, 16), the mel window of the target frame
            landmarks: (B, 131, 2) in the crop, as drawn in the middle sketch; only subclasses use them
        """
        sketches = channels_last(target_sketches[:, :, : self.config.sketch_channels].flatten(1, 2))  # (B, T*S, H, W)
        motion = self.predict_motion(features, sketches, masked_target, landmarks)  # equation 13
        references = align(features, motion, self.sampling) if motion else average(features)  # equations 14 and 15
        face = self.translate(masked_target, sketches, references, mel)  # equation 16
        return RendererOutput(face, references.image.expand_as(face), motion)

    def predict_motion(
        self, features: ReferenceFeatures, sketches: Tensor, masked_target: Tensor, landmarks: Tensor | None
    ) -> Motion | None:
        """Predicts motion field F and weight w of each reference (equation 13); None without warping."""
        if self.motion_field is None:
            return None
        return self.motion_field(features.deep, sketches)

    def translate(self, masked_target: Tensor, sketches: Tensor, references: AlignedReferences, mel: Tensor) -> Tensor:
        """Draws the face (B, 3, H, W), RGB in [0, 1] (equation 16)."""
        return self.translation(masked_target, sketches, references, mel).sigmoid()
