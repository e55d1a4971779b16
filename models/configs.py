"""Sizes of the paper's networks. Every default comes from the paper or from the released weights."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LandmarkGeneratorConfig:
    """Sizes of the landmark generator."""

    num_frames: int = 5
    """Frames in a window, T."""
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
    """True: pre-norm as in equation 7, plus a final norm. False: post-norm as in the released weights."""
    architecture: Literal["transformer", "lstm"] = "transformer"
    """lstm: the bidirectional LSTM of Table 3, as large as the Transformer if feed_forward is twice the width."""
    audio_width: int = 32
    """Channels of the audio encoder's first layer."""
    landmark_width: int = 4
    """Channels of the first layer of the pose and reference encoders."""


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the renderer."""

    size: int = 128
    """Side of the face crop in pixels, H = W."""
    num_frames: int = 5
    """Target sketches, 2k + 1, centred on the target frame; odd."""
    sketch_channels: int = 3
    """Channels read from each grey sketch: 3 in the released weights; 1 is the same picture at a third of the cost."""
    shallow: int = 32
    """Channels at full resolution, c_1."""
    deep: int = 256
    """Channels at half resolution in the translation module; a multiple of 4."""
    alignment_deep: int = 256
    """Channels at half resolution in the alignment module, c_2, a multiple of 4: the cost of each reference."""
    modulation: int = 256
    """Hidden channels of the SPADE layers."""
    style_hidden: int = 128
    """Hidden width of the AdaIN layers."""
    kernel: int = 7
    """Kernel size of the full-resolution layers that read pictures or output flow, weight or colours; odd."""
    audio_width: int = 32
    """Channels of the audio encoder's first layer; its embedding is 16 times as wide."""
    use_warping: bool = True
    """False: the translation module gets misaligned references (Table 4, 'w/o warping')."""
    use_audio: bool = True
    """False: the translation module gets no audio feature (Table 4, 'w/o audio')."""
