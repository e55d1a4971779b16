"""Samples for stage 1: a window of sound and pose landmarks, reference faces, and the lips and jaws to predict."""

import numpy as np
import torch

from datasets.clip_cache import Clip
from datasets.sampling import Augmentation, SampledClips
from datasets.windows import sample_references, window_starts
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from media.audio import mel_windows


class LandmarkDataset(SampledClips):
    """Windows of `num_frames` (T) frames, with `num_references` (N) faces of the same clip outside the window.

    Items (float32 tensors, landmarks in crop coordinates): mel (T, 1, 80, 16), pose (T, 74, 2), reference (N, 131, 2),
    lip (T, 40, 2), jaw (T, 17, 2); boxes (T, 4) int32 of the faces; name: of the clip, frame: the window's first.

    Raises:
        UserError: no clip is long enough.
    """

    def __getitem__(self, index: int) -> dict[str, object]:
        rng, clip = self.draw(index)
        start = int(rng.choice(window_starts(clip.found, self.num_frames)))
        window = np.arange(start, start + self.num_frames)
        references = sample_references(rng, clip.found, window, self.num_references)
        return make_sample(clip, window, references, Augmentation(rng, self.config.augment))


def make_sample(
    clip: Clip, window: np.ndarray, references: np.ndarray, augmentation: Augmentation
) -> dict[str, object]:
    """An item as above from frames (T,) that follow each other and from frames (N,)."""
    stretched = augmentation.stretch(clip.crop_landmarks(window))
    faces = augmentation.landmarks(stretched, augmentation.move())  # (T, 131, 2)
    reference = augmentation.landmarks(clip.crop_landmarks(references), augmentation.move())  # (N, 131, 2)
    return {
        "mel": torch.from_numpy(augmentation.sound(mel_windows(clip.mel, window))),
        "pose": torch.from_numpy(faces[:, POSE_SLICE]),
        "reference": torch.from_numpy(reference),
        "lip": torch.from_numpy(faces[:, LIP_SLICE]),
        "jaw": torch.from_numpy(faces[:, JAW_SLICE]),
        "boxes": torch.from_numpy(clip.boxes[window]),
        "name": clip.name,
        "frame": int(window[0]),
    }
