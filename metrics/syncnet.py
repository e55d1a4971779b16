"""SyncNet (Chung and Zisserman, "Out of time", 2016): LSE-C (SyncScore), LSE-D and the offset between sound and lips.

The network loads the public file syncnet_v2.model, a state dict, unchanged.
"""

from collections import deque
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from checkpoints import registry
from media.audio import FPS, SAMPLE_RATE

SIDE = 224  # pixels of the network's frames
WINDOW = 5  # video frames
STEP = 100 // FPS  # columns a frame: python_speech_features gives 100 a second
MFCC_COLUMNS = 20  # of a window, 0.2 s
MAX_SHIFT = 15  # frames by which the sound is shifted, in both directions
EMBEDDING = 1024


def _sound_layers(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _lip_layers(
    inputs: int,
    outputs: int,
    side: int,
    stride: int = 1,
    padding: int = 1,
    depth: int = 1,
) -> tuple[nn.Module, ...]:
    kernel = (depth, side, side)
    convolution = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding))
    return convolution, nn.BatchNorm3d(outputs), nn.ReLU()


def _lip_pooling(padding: int = 0) -> nn.Module:
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))


def _projection() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512),
        nn.BatchNorm1d(512),
        nn.ReLU(),
        nn.Linear(512, EMBEDDING),
    )


class SyncNet(nn.Module):
    """Embeds 5 frames of lips and 0.2 s of sound in one space."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_sound_layers(1, 64),
            nn.MaxPool2d(1, 1),
            *_sound_layers(64, 192),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_sound_layers(192, 384),
            *_sound_layers(384, 256),
            *_sound_layers(256, 256),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(256, 512, (5, 4)),
            nn.BatchNorm2d(512),
            nn.ReLU(),
        )
        self.netcnnlip = nn.Sequential(
            *_lip_layers(3, 96, 7, stride=2, padding=0, depth=5),
            _lip_pooling(),
            *_lip_layers(96, 256, 5, stride=2),
            _lip_pooling(padding=1),
            *_lip_layers(256, 256, 3),
            *_lip_layers(256, 256, 3),
            *_lip_layers(256, 256, 3),
            _lip_pooling(),
            *_lip_layers(256, 512, 6, padding=0),
        )
        self.netfcaud = _projection()
        self.netfclip = _projection()

    def embed_sound(self, mfcc: Tensor) -> Tensor:
        """(n, 1, 13, 20) -> (n, 1024), not normalised."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def embed_lips(self, frames: Tensor) -> Tensor:
        """(n, 3, 5, 224, 224), BGR in 0..255 -> (n, 1024), not normalised."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))


def load(path: Path) -> SyncNet:
    """The network with the public weights. Raises UserError if the file is not SyncNet's."""
    network = SyncNet()
    with registry.reading(path, "SyncNet"):
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.requires_grad_(False).eval()


def mfcc_columns(wav: np.ndarray) -> Tensor:
    """Sound (S,), float in [-1, 1] at 16 kHz -> (13, C), a column every 10 ms.

    The public code reads 16-bit samples, whose scale matters to the first coefficient.
    """
    import python_speech_features

    samples = np.clip(np.round(wav * 32768.0), -32768, 32767)
    coefficients = python_speech_features.mfcc(samples, SAMPLE_RATE)
    return torch.from_numpy(coefficients.T.astype(np.float32))


class SyncScorer:
    """Scores the frames of one clip against its sound; only the frames of one window are kept.

    Args:
        network: from `load`.
        wav: (S,) sound at 16 kHz. As in the public code, no window starts in the last five frames of the sound.
    """

    def __init__(self, network: SyncNet, wav: np.ndarray) -> None:
        self.network = network
        self.device = next(network.parameters()).device
        count = max(0, len(wav) * FPS // SAMPLE_RATE - WINDOW)
        columns = nn.functional.pad(mfcc_columns(wav), (0, MFCC_COLUMNS))
        windows = columns.unfold(1, MFCC_COLUMNS, STEP)[:, :count]  # (13, n, 20)
        self.windows = windows.transpose(0, 1)[:, None]  # (n, 1, 13, 20)
        self.lips: list[Tensor] = []  # (1, 1024) of each window
        self.sound: list[Tensor] = []
        self._frames = deque(maxlen=WINDOW)

    @torch.inference_mode()
    def add(self, frame: np.ndarray) -> None:
        """Adds the next frame (H, W, 3), RGB uint8, of which all is seen, as usual for LRS2."""
        number = len(self.lips)
        if len(self._frames) == WINDOW and number < len(self.windows):  # as in public code, without the last window
            frames = torch.stack(list(self._frames), dim=2)  # (1, 3, 5, 224, 224)
            self.lips.append(self.network.embed_lips(frames).cpu())
            sound = self.windows[[number]].to(self.device)
            self.sound.append(self.network.embed_sound(sound).cpu())
        bgr = cv2.dnn.blobFromImage(frame, size=(SIDE, SIDE), swapRB=True)  # (1, 3, 224, 224), 0..255
        self._frames.append(torch.from_numpy(bgr).to(self.device))

    def scores(self) -> dict[str, float]:
        """The clip's scores by column; empty if it has fewer than six frames, as an offset of 0 would mean in sync."""
        if not self.lips:
            return {}
        return score(torch.cat(self.lips), torch.cat(self.sound))


def score(lips: Tensor, sound: Tensor) -> dict[str, float]:
    """Scores embeddings (n, 1024) by their mean distance at every shift; beyond its ends the sound is zero.

    "LSE-D" is the smallest distance, "LSE-C" how far it lies below the median, "offset" its shift in frames.
    """
    padded = nn.functional.pad(sound, (0, 0, MAX_SHIFT, MAX_SHIFT))
    shifted = padded.unfold(0, len(lips), 1).transpose(1, 2)  # (31, n, 1024)
    distances = nn.functional.pairwise_distance(lips, shifted).mean(dim=1)
    smallest, best = distances.min(dim=0)
    return {
        "LSE-C": float(distances.median() - smallest),
        "LSE-D": float(smallest),
        "offset": float(MAX_SHIFT - best),
    }
