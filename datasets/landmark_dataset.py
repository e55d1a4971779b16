"""Samples of stage 1: a window of sound and pose landmarks, reference faces, and the lips and jaws to predict."""

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from datasets.clip_cache import Clip
from datasets.sampling import Augmentation, SampledClips
from datasets.windows import sample_references, window_starts
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from media.audio import mel_windows


class LandmarkSample(TypedDict):
    """A window of T frames and N references of the same clip outside it. Landmarks are in crop coordinates."""

    mel: Tensor
    """(T, 1, 80, 16) float32."""
    pose: Tensor
    """(T, 74, 2) float32."""
    reference: Tensor
    """(N, 131, 2) float32."""
    lip: Tensor
    """(T, 40, 2) float32."""
    jaw: Tensor
    """(T, 17, 2) float32."""
    boxes: Tensor
    """(T, 4) int32, face boxes in pixels of the source frame."""
    name: str
    """The clip's name."""
    frame: int
    """First frame of the window."""


class LandmarkDataset(SampledClips):
    """Items are `LandmarkSample`s; see `SampledClips`."""

    def __getitem__(self, index: int) -> LandmarkSample:
        rng, clip = self.draw(index)
        start = int(rng.choice(window_starts(clip.found, self.num_frames)))
        window = np.arange(start, start + self.num_frames)
        references = sample_references(rng, clip.found, window, self.num_references)
        return make_sample(clip, window, references, Augmentation(rng, self.config.augment))


def make_sample(clip: Clip, window: np.ndarray, references: np.ndarray, augmentation: Augmentation) -> LandmarkSample:
    """Makes a sample of consecutive frames `window` (T,) and of frames `references` (N,)."""
    stretched = augmentation.stretch(clip.crop_landmarks(window))
    target = augmentation.move_landmarks(stretched, augmentation.draw_move())  # (T, 131, 2)
    reference = augmentation.move_landmarks(clip.crop_landmarks(references), augmentation.draw_move())  # (N, 131, 2)
    mel = augmentation.change_sound(mel_windows(clip.mel, window))
    return {
        "mel": torch.from_numpy(mel),
        "pose": torch.from_numpy(target[:, POSE_SLICE]),
        "reference": torch.from_numpy(reference),
        "lip": torch.from_numpy(target[:, LIP_SLICE]),
        "jaw": torch.from_numpy(target[:, JAW_SLICE]),
        "boxes": torch.from_numpy(clip.boxes[window]),
        "name": clip.name,
        "frame": int(window[0]),
    }
