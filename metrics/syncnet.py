"""SyncNet (Chung and Zisserman, "Out of time", 2016): LSE-C (SyncScore), LSE-D and the offset between sound and lips.

The network loads the public file syncnet_v2.model, a state dict, unchanged.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from checkpoints import registry
from media.audio import FPS, SAMPLE_RATE

SIDE = 224  # pixels of the network's frames
WINDOW = 5  # video frames
MFCC_RATE = 100  # columns per second, python_speech_features' default
MFCC_COLUMNS = 20  # of a window, 0.2 s
MAX_SHIFT = 15  # frames by which the sound is shifted, in both directions
EMBEDDING = 1024
BATCH = 20  # windows of sound embedded at once


class SyncScore(NamedTuple):
    """Synchronisation of one clip."""

    confidence: float  # LSE-C, higher is better
    distance: float  # LSE-D, lower is better
    offset: float  # frames, 0 if in sync


def _audio_layers(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, padding: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _lip_layers(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding))
    return convolution, nn.BatchNorm3d(outputs), nn.ReLU()


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
            *_audio_layers(1, 64),
            nn.MaxPool2d(1, 1),
            *_audio_layers(64, 192),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_audio_layers(192, 384),
            *_audio_layers(384, 256),
            *_audio_layers(256, 256),
            nn.MaxPool2d(3, stride=2),
            *_audio_layers(256, 512, kernel=(5, 4), padding=0),
        )
        self.netcnnlip = nn.Sequential(
            *_lip_layers(3, 96, (5, 7, 7), stride=2, padding=0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_lip_layers(96, 256, (1, 5, 5), stride=2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_lip_layers(256, 256, (1, 3, 3)),
            *_lip_layers(256, 256, (1, 3, 3)),
            *_lip_layers(256, 256, (1, 3, 3)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_lip_layers(256, 512, (1, 6, 6), padding=0),
        )
        self.netfcaud = _projection()
        self.netfclip = _projection()

    def embed_sound(self, mfcc: Tensor) -> Tensor:
        """(n, 1, 13, 20) -> (n, 1024), not normalised."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def embed_lips(self, frames: Tensor) -> Tensor:
        """(n, 3, 5, 224, 224), BGR in 0..255 -> (n, 1024), not normalised."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))


def load(path: Path, device: str = "cpu") -> SyncNet:
    """The network with the public weights. Raises UserError if the file is not SyncNet's."""
    network = SyncNet()
    with registry.reading(path, "SyncNet"):
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.to(device).requires_grad_(False).eval()


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
        self.wav = wav
        self.frames_left = len(wav) * FPS // SAMPLE_RATE
        self._frames: list[Tensor] = []
        self._lips: list[Tensor] = []

    @torch.inference_mode()
    def add(self, frame: np.ndarray) -> None:
        """Adds the next frame (H, W, 3), RGB uint8, of which all is seen, as usual for LRS2."""
        if self.frames_left == 0:
            return
        self.frames_left -= 1
        if len(self._frames) == WINDOW:  # one frame later than possible: the clip's last window is left out
            window = torch.stack(self._frames, dim=1)[None]  # (1, 3, 5, 224, 224)
            self._lips.append(self.network.embed_lips(window).cpu())
            del self._frames[0]
        resized = cv2.resize(frame, (SIDE, SIDE))
        bgr = resized[..., ::-1].astype(np.float32)
        tensor = torch.from_numpy(bgr).permute(2, 0, 1)
        self._frames.append(tensor.to(self.device))

    @torch.inference_mode()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Embeddings of lips and of sound, (n, 1024) each, one per frame, after the last of at least 6 frames."""
        lips = torch.cat(self._lips)
        step = MFCC_RATE // FPS
        columns = mfcc_columns(self.wav)
        missing = len(lips) * step + MFCC_COLUMNS - columns.shape[1]
        columns = nn.functional.pad(columns, (0, max(0, missing)))
        windows = columns.unfold(1, MFCC_COLUMNS, step)[:, : len(lips)]  # (13, n, 20)
        batches = windows.transpose(0, 1)[:, None].split(BATCH)  # (20, 1, 13, 20) each
        sound = []
        for batch in batches:
            sound.append(self.network.embed_sound(batch.to(self.device)).cpu())
        return lips, torch.cat(sound)

    def finish(self) -> SyncScore:
        """The clip's scores; NaN if it is too short for a window."""
        if not self._lips:
            return SyncScore(float("nan"), float("nan"), float("nan"))
        return score(*self.embeddings())


def score(lips: Tensor, sound: Tensor) -> SyncScore:
    """Scores embeddings (n, 1024) by their mean distance at every shift; beyond its ends the sound is zero."""
    padded = nn.functional.pad(sound, (0, 0, MAX_SHIFT, MAX_SHIFT))
    means = []
    for shift in range(2 * MAX_SHIFT + 1):
        shifted = padded[shift : shift + len(lips)]
        means.append(nn.functional.pairwise_distance(lips, shifted).mean())
    distances = torch.stack(means)
    smallest, best = distances.min(dim=0)
    return SyncScore(float(distances.median() - smallest), float(smallest), MAX_SHIFT - int(best))
