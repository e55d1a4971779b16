"""SyncNet (Chung and Zisserman, "Out of time", 2016): LSE-C (SyncScore), LSE-D and the offset between sound and lips.

The network loads the public file syncnet_v2.model, a state dict, unchanged.
"""

from collections import deque
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation, Conv3dNormActivation

from checkpoints import registry
from media.audio import FPS, SAMPLE_RATE

SIDE = 224  # pixels of the network's frames
WINDOW = 5  # video frames
STEP = 100 // FPS  # MFCC columns per frame: python_speech_features gives 100 a second
MFCC_COLUMNS = 20  # of a window, 0.2 s
MAX_SHIFT = 15  # frames by which the sound is shifted in either direction
EMBEDDING = 1024


def _projection() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512),
        nn.BatchNorm1d(512),
        nn.ReLU(),
        nn.Linear(512, EMBEDDING),
    )


class SyncNet(nn.Module):
    """Embeds 5 frames of lips and 0.2 s of sound in one space."""

    def __init__(self):
        super().__init__()
        sound = partial(Conv2dNormActivation, bias=True)  # three modules: convolution, batch norm, ReLU
        self.netcnnaud = nn.Sequential(
            *sound(1, 64),
            nn.MaxPool2d(1, 1),
            *sound(64, 192),
            nn.MaxPool2d(3, (1, 2)),
            *sound(192, 384),
            *sound(384, 256),
            *sound(256, 256),
            nn.MaxPool2d(3, 2),
            *sound(256, 512, (5, 4), padding=0),
        )
        lips = partial(Conv3dNormActivation, bias=True)
        half = (1, 2, 2)  # stride: all frames, half the resolution
        self.netcnnlip = nn.Sequential(
            *lips(3, 96, (5, 7, 7), half, padding=0),
            nn.MaxPool3d((1, 3, 3), half),
            *lips(96, 256, (1, 5, 5), half, padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), half, padding=(0, 1, 1)),
            *lips(256, 256, (1, 3, 3)),
            *lips(256, 256, (1, 3, 3)),
            *lips(256, 256, (1, 3, 3)),
            nn.MaxPool3d((1, 3, 3), half),
            *lips(256, 512, (1, 6, 6), padding=0),
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
    """Loads the network with the public weights. Raises UserError if the file is not SyncNet's."""
    network = SyncNet()
    with registry.reading(path, "SyncNet"):
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.requires_grad_(False).eval()


def mfcc_columns(wav: ndarray) -> Tensor:
    """MFCCs of sound (S,), float in [-1, 1] at 16 kHz: (13, C), a column every 10 ms.

    The public code reads 16-bit samples; their scale affects the first coefficient.
    """
    import python_speech_features

    samples = np.clip(np.round(wav * 32768.0), -32768, 32767)
    coefficients = python_speech_features.mfcc(samples, SAMPLE_RATE)
    return torch.from_numpy(coefficients.T.astype(np.float32))


@torch.inference_mode()
def embed(network: SyncNet, frames: Iterable[ndarray], wav: ndarray) -> tuple[Tensor, Tensor]:
    """Embeds the lips and the sound of each window of a clip: two tensors (n, 1024).

    As in the public code, no window starts in the last five frames. Memory holds the frames of one window.

    Args:
        network: from `load`.
        frames: (H, W, 3) RGB uint8; used whole, without a face crop, as usual for LRS2.
        wav: (S,) at 16 kHz; frames beyond its end are left out.
    """
    device = next(network.parameters()).device
    recent = deque(maxlen=WINDOW)
    lips = []
    for frame in islice(frames, len(wav) * FPS // SAMPLE_RATE):
        if len(recent) == WINDOW:
            window = torch.stack(list(recent), dim=2)  # (1, 3, 5, 224, 224)
            lips.append(network.embed_lips(window))
        bgr = cv2.dnn.blobFromImage(frame, size=(SIDE, SIDE), swapRB=True)  # (1, 3, 224, 224), 0..255
        recent.append(torch.from_numpy(bgr).to(device))
    if not lips:
        nothing = torch.empty(0, EMBEDDING)
        return nothing, nothing
    windows = mfcc_columns(wav).unfold(1, MFCC_COLUMNS, STEP)[:, : len(lips)]  # (13, n, 20)
    sound = [network.embed_sound(window[None, None].to(device)) for window in windows.unbind(1)]
    return torch.cat(lips).cpu(), torch.cat(sound).cpu()


def score(lips: Tensor, sound: Tensor) -> dict[str, float]:
    """Scores embeddings (n, 1024) by their mean distance at every shift; beyond its ends the sound is zero.

    "LSE-D" is the smallest distance, "LSE-C" the median minus the smallest, and "offset" the shift of the smallest in
    frames. Without windows (a clip of fewer than six frames) there are no scores: an offset of 0 would mean in sync.
    """
    if not len(lips):
        return {}
    padded = nn.functional.pad(sound, (0, 0, MAX_SHIFT, MAX_SHIFT))
    shifted = padded.unfold(0, len(lips), 1).transpose(1, 2)  # (31, n, 1024)
    distances = nn.functional.pairwise_distance(lips, shifted).mean(dim=1)
    smallest, best = distances.min(dim=0)
    return {
        "LSE-C": float(distances.median() - smallest),
        "LSE-D": float(smallest),
        "offset": float(MAX_SHIFT - best),
    }
