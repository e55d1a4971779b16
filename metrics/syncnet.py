"""SyncNet (Chung and Zisserman, "Out of time", 2016): LSE-C (SyncScore), LSE-D and the offset of sound and lips.

The network takes the public file syncnet_v2.model, a state dict, unchanged.
"""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from checkpoints import registry
from media.audio import FPS, SAMPLE_RATE

SIDE = 224
WINDOW = 5  # video frames
MFCC_RATE = 100  # python_speech_features' default: a column each 10 ms
MFCC_COLUMNS = 20  # of a window: 0.2 s
REACH = 15  # frames of shift tried on either side
EMBEDDING = 1024
BATCH = 20  # windows
CROP_SCALE = 0.4  # "pipeline": the face track's crop is this much wider than the box on each side
MIN_TRACK = 50  # "pipeline": frames of the shortest track that is scored


class SyncScore(NamedTuple):
    """`confidence` LSE-C (higher is better), `distance` LSE-D (lower is better), `offset` in frames (0: in place)."""

    confidence: float
    distance: float
    offset: float


def _audio(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]


def _video(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=(0, padding, padding))
    return [convolution, nn.BatchNorm3d(outputs), nn.ReLU()]


class SyncNet(nn.Module):
    """Two streams that meet in one space: 5 frames of lips and 0.2 s of sound."""

    def __init__(self) -> None:
        super().__init__()
        smaller = partial(nn.MaxPool3d, (1, 3, 3), (1, 2, 2))
        self.netcnnaud = nn.Sequential(
            *_audio(1, 64), nn.MaxPool2d(1, 1), *_audio(64, 192), nn.MaxPool2d(3, stride=(1, 2)), *_audio(192, 384),
            *_audio(384, 256), *_audio(256, 256), nn.MaxPool2d(3, stride=2), *_audio(256, 512, (5, 4), 0),
        )  # fmt: skip
        self.netcnnlip = nn.Sequential(
            *_video(3, 96, (5, 7, 7), 2, 0), smaller(),
            *_video(96, 256, (1, 5, 5), 2, 1), smaller((0, 1, 1)),
            *_video(256, 256, (1, 3, 3), 1, 1), *_video(256, 256, (1, 3, 3), 1, 1),
            *_video(256, 256, (1, 3, 3), 1, 1), smaller(), *_video(256, 512, (1, 6, 6), 1, 0),
        )  # fmt: skip
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))
            for _ in range(2)
        )

    def embed_sound(self, mfcc: Tensor) -> Tensor:
        """(n, 1, 13, 20) -> (n, 1024), not normalised."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def embed_lips(self, frames: Tensor) -> Tensor:
        """(n, 3, 5, 224, 224) BGR 0..255 -> (n, 1024), not normalised."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))


def load(path: Path, device: str = "cpu") -> SyncNet:
    """The network with the public weights. Raises UserError if the file is not SyncNet's."""
    network = SyncNet()
    with registry.reading(path, "SyncNet"):
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.to(device).requires_grad_(False).eval()


def mfcc_columns(wav: np.ndarray) -> Tensor:
    """Sound (S,) float in [-1, 1] at 16 kHz -> (13, C), a column each 10 ms.

    The public code reads 16-bit samples; their scale matters to the first coefficient.
    """
    import python_speech_features

    samples = np.clip(np.round(wav * 32768.0), -32768, 32767)
    return torch.from_numpy(python_speech_features.mfcc(samples, SAMPLE_RATE).T.astype(np.float32))


def track_crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The "pipeline" protocol: a square of the frame (H, W, 3) around the face box x0, y0, x1, y1, a little lower."""
    half = float(max(box[2] - box[0], box[3] - box[1])) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    pad = math.ceil(half * (1 + 2 * CROP_SCALE))
    padded = cv2.copyMakeBorder(frame, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(110, 110, 110))
    top, left = int(pad + y - half), int(pad + x - half * (1 + CROP_SCALE))
    bottom, right = int(pad + y + half * (1 + 2 * CROP_SCALE)), int(pad + x + half * (1 + CROP_SCALE))
    return padded[top:bottom, left:right]


class SyncScorer:
    """Takes the frames of one clip one by one, holding a batch of them, and scores them against its sound.

    Args:
        network: from `load`.
        wav: (S,) sound at 16 kHz. As in the public code, no window starts in the last five frames that it reaches.
    """

    def __init__(self, network: SyncNet, wav: np.ndarray) -> None:
        self.network, self.device = network, next(network.parameters()).device
        self.wav, self.left = wav, len(wav) * FPS // SAMPLE_RATE
        self._held: list[Tensor] = []
        self._lips: list[Tensor] = []

    def add(self, frame: np.ndarray, box: np.ndarray | None = None) -> None:
        """The next frame, (H, W, 3) RGB uint8: all of it ("LRS"), or around the face's box (4,) ("pipeline")."""
        if self.left > 0:
            fitted = cv2.resize(frame if box is None else track_crop(frame, box), (SIDE, SIDE))
            self._held.append(torch.from_numpy(np.ascontiguousarray(fitted[..., ::-1])).permute(2, 0, 1))  # BGR
            self.left -= 1
        if len(self._held) == BATCH + WINDOW:  # one more than needed: the last window of the clip is left out
            self._embed(BATCH)

    @torch.inference_mode()
    def _embed(self, count: int) -> None:
        video = torch.stack(self._held).to(self.device).float()  # (count + 5, 3, 224, 224)
        windows = video.unfold(0, WINDOW, 1)[:count]  # (count, 3, 224, 224, 5)
        self._lips.append(self.network.embed_lips(windows.permute(0, 1, 4, 2, 3)).cpu())
        del self._held[:count]

    @torch.inference_mode()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Of lips and of sound, (n, 1024) each, one a frame, after the last frame was added (at least 6)."""
        if len(self._held) > WINDOW:
            self._embed(len(self._held) - WINDOW)
        lips = torch.cat(self._lips)
        columns, step = mfcc_columns(self.wav), MFCC_RATE // FPS
        columns = nn.functional.pad(columns, (0, max(0, len(lips) * step + MFCC_COLUMNS - columns.shape[1])))
        windows = columns.unfold(1, MFCC_COLUMNS, step)[:, : len(lips)]  # (13, n, 20)
        batches = windows.transpose(0, 1)[:, None].split(BATCH)  # (20, 1, 13, 20)
        return lips, torch.cat([self.network.embed_sound(batch.to(self.device)).cpu() for batch in batches])

    def finish(self) -> SyncScore:
        """The clip's scores; all NaN if it is too short for a window."""
        if not self._lips and len(self._held) <= WINDOW:
            return SyncScore(float("nan"), float("nan"), float("nan"))
        return score(*self.embeddings())


def score(lips: Tensor, sound: Tensor) -> SyncScore:
    """Mean distance over time for every shift of sound against lips (n, 1024); outside, sound is zero (public code)."""
    padded = nn.functional.pad(sound, (0, 0, REACH, REACH))
    shifted = (padded[shift : shift + len(lips)] for shift in range(2 * REACH + 1))
    distances = torch.stack([nn.functional.pairwise_distance(lips, s).mean() for s in shifted])
    smallest, best = distances.min(0)
    return SyncScore(float(distances.median() - smallest), float(smallest), REACH - int(best))
