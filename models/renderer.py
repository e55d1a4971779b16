"""Stage 2, landmarks to video: alignment of the references and translation (paper, section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import zeroed
from models.lite.initial_motion import LandmarkStart
from models.motion_field import Motion, MotionField, ReferenceEncoder, ReferenceFeatures, align, align_pictures
from models.translation import Translation


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the renderer. The defaults are the paper's."""

    size: int = 128
    """Side of the face crop in pixels."""
    num_frames: int = 5
    """Sketches around the target frame, T."""
    sketch_channels: int = 3
    """Channels used of each (grey) sketch: 3 as released, 1 for the same picture at a third of the cost."""
    shallow: int = 32
    """Channels at full size."""
    deep: int = 256
    """Channels at half size in the translation; a multiple of 4."""
    alignment_deep: int = 256
    """Channels at half size in the alignment, the part that costs per reference; a multiple of 4."""
    modulation: int = 256
    """Hidden channels of the SPADE layers."""
    style_hidden: int = 128
    """Hidden width of the AdaIN layers."""
    kernel: int = 7
    """Side of the kernels at full size that see pictures or give flow, weight and colours; odd."""
    audio_width: int = 32
    """First channels of the audio encoder; its embedding is 16 times as wide."""
    use_warping: bool = True
    """False: misaligned references go into the translation (Table 4, 'w/o warping')."""
    use_audio: bool = True
    """False: the translation does not hear (Table 4, 'w/o audio')."""
    candidates: int = 0
    """Not in the paper: the references are, for each target, the nearest of so many frames. 0: the same for all."""
    landmark_start: bool = False
    """Not in the paper: where landmarks are given, the flow starts from their displacement and from what the target's
    upper half shows to be left, the weight from how the references, so moved, look side by side; the network refines
    both."""
    output_skip: bool = False
    """Not in the paper: the translation draws the difference to [upper half of the target, lower half of the aligned
    references], and starts from zero flow and zero difference."""

    @classmethod
    def lite(cls) -> "RendererConfig":
        """For CPUs: the same architecture, narrower."""
        return cls(
            sketch_channels=1, shallow=8, deep=64, alignment_deep=32, modulation=32, style_hidden=32, kernel=3,
            audio_width=8, candidates=25, landmark_start=True, output_skip=True,
        )  # fmt: skip


class RendererOutput(NamedTuple):
    face: Tensor  # (B, 3, H, W): RGB in [0, 1]
    warped_reference: Tensor  # (B, 3, H, W): the references aligned and averaged, RGB in [0, 1]
    motion: Motion | None  # of the references; None without warping


class Renderer(nn.Module):
    """Draws a face whose lower half is masked, as its sketches and the sound say, as the references look.

    The number of references N is free. RGB in and out; the caller masks the target.
    """

    settings: Mapping[str, str | int | float] = {}  # landmark, mel and crop settings of its training
    extra: Mapping[str, Any] = {}  # what else the weight file says: step, ...

    def __init__(self, config: RendererConfig = RendererConfig()):
        super().__init__()
        self.config = c = config
        self.reference_encoder = ReferenceEncoder(c.sketch_channels, c.shallow, c.alignment_deep, c.kernel)
        target_channels = c.num_frames * c.sketch_channels
        self.motion_field = (
            MotionField(target_channels, c.shallow, c.alignment_deep, c.modulation, c.kernel) if c.use_warping else None
        )
        self.start = LandmarkStart() if c.use_warping and c.landmark_start else None
        self.translation = Translation(c, target_channels)
        if c.output_skip:
            zeroed(self.translation.to_rgb)
            if self.motion_field is not None:
                zeroed(self.motion_field.flow)
        self.to(memory_format=torch.channels_last)  # on CPU twice as fast for narrow layers

    def encode_references(self, images: Tensor, sketches: Tensor, landmarks: Tensor | None = None) -> ReferenceFeatures:
        """Once a video: images, sketches (B, N, 3, H, W) and landmarks (B, N, 131, 2), all in [0, 1] -> features."""
        features = self.reference_encoder(images, sketches[:, :, : self.config.sketch_channels])
        return features._replace(landmarks=landmarks if self.config.landmark_start else None)

    def render(
        self, masked_target: Tensor, target_sketches: Tensor, features: ReferenceFeatures, mel: Tensor,
        landmarks: Tensor | None = None,
    ) -> RendererOutput:  # fmt: skip
        """Draws B frames.

        Args:
            masked_target: (B, 3, H, W), RGB in [0, 1], rows from H/2 on zero
            target_sketches: (B, T, 3, H, W) in [0, 1], the target frame's in the middle
            features: of B sets of references, or of one set for all B frames
            mel: (B, 1, 80, 16), the window of the target frame
            landmarks: (B, 131, 2) of the target in the crop, as its sketch shows them; for `landmark_start`
        """
        sketches = target_sketches[:, :, : self.config.sketch_channels].flatten(1, 2)  # (B, T*S, H, W)
        sketches = sketches.contiguous(memory_format=torch.channels_last)
        if self.motion_field is None:
            motion, (full, half) = None, (features.full.mean(1), features.half.mean(1))
        else:
            start = None
            if self.start is not None and landmarks is not None and features.landmarks is not None:
                with torch.no_grad():  # trained before all else, by itself
                    start = self.start(landmarks, features.landmarks, features.full[:, :, :3], masked_target)
            motion = self.motion_field(features.half, sketches, start)
            full, half = align(features, motion, identity_at_zero=self.config.output_skip)
        logits = self.translation(masked_target, sketches, full, half, mel).float()
        warped = full[:, :3].expand_as(masked_target)
        if self.config.output_skip:
            middle = self.config.size // 2
            start = torch.cat([masked_target[:, :, :middle], warped[:, :, middle:]], dim=2)
            logits = logits + start.float().clamp(0.01, 0.99).logit()
        return RendererOutput(logits.sigmoid(), warped if motion else warped.detach(), motion)

    def sharpen(self, output: RendererOutput, pictures: Tensor) -> Tensor:
        """The face at k times its size, its lower half as sharp as the references are there. Not in the paper.

        The references are aligned once more, from larger pictures, and what the translation changed in them is added.

        Args:
            output: what `render` drew, with warping
            pictures: its references in their order, (B, N, 3, k*H, k*W), RGB in [0, 1]

        Returns:
            (B, 3, k*H, k*W), RGB in [0, 1]
        """
        assert output.motion is not None
        aligned = align_pictures(pictures, output.motion, self.config.output_skip)
        change = output.face - output.warped_reference
        face, change = (F.interpolate(x, pictures.shape[-2:], mode="bilinear") for x in (output.face, change))
        upper, lower = face.chunk(2, dim=2)[0], change.chunk(2, dim=2)[1] + aligned
        return torch.cat([upper, lower.clamp(0, 1)], dim=2)

    def forward(
        self, masked_target: Tensor, target_sketches: Tensor, reference_images: Tensor, reference_sketches: Tensor,
        mel: Tensor, landmarks: Tensor | None = None, reference_landmarks: Tensor | None = None,
    ) -> RendererOutput:  # fmt: skip
        """`render` on references that are used once, as in training: images and sketches (B, N, 3, H, W)."""
        features = self.encode_references(reference_images, reference_sketches, reference_landmarks)
        return self.render(masked_target, target_sketches, features, mel, landmarks)
