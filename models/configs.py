"""Sizes of the paper's networks. Every default is the paper's or the released weights'."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LandmarkGeneratorConfig:
    """Sizes of the landmark generator."""

    num_frames: int = 5
    """Frames of a window, T."""
    width: int = 512
    """Width of the tokens, d."""
    layers: int = 4
    """Transformer layers, L."""
    heads: int = 4
    """Attention heads."""
    feed_forward: int = 1024
    """Hidden width of the Transformer's MLP."""
    dropout: float = 0.1
    norm_first: bool = False
    """True: pre-norm, as in equation 7, and a final norm. False: post-norm, as in the released weights."""
    architecture: Literal["transformer", "lstm"] = "transformer"
    """lstm: the bidirectional LSTM of Table 3, with about as many parameters (at feed_forward = 2 * width)."""
    audio_width: int = 32
    """First channels of the audio encoder."""
    landmark_width: int = 4
    """First channels of the pose and the reference encoder."""


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the renderer."""

    size: int = 128
    """Side of the face crop in pixels, H = W."""
    num_frames: int = 5
    """Sketches around the target frame, 2k + 1; odd."""
    sketch_channels: int = 3
    """Channels used of each (grey) sketch: 3 as released; 1 is the same picture at a third of the cost."""
    shallow: int = 32
    """Channels at full size, c_1."""
    deep: int = 256
    """Channels at half size in the translation; a multiple of 4."""
    alignment_deep: int = 256
    """Channels at half size in the alignment, c_2: the part that costs per reference; a multiple of 4."""
    modulation: int = 256
    """Hidden channels of the SPADE layers."""
    style_hidden: int = 128
    """Hidden width of the AdaIN layers."""
    kernel: int = 7
    """Side of the kernels at full size that read pictures or give flow, weight and colours; odd."""
    audio_width: int = 32
    """First channels of the audio encoder; its embedding is 16 times as wide."""
    use_warping: bool = True
    """False: misaligned references go into the translation (Table 4, 'w/o warping')."""
    use_audio: bool = True
    """False: the translation gets no audio feature (Table 4, 'w/o audio')."""
