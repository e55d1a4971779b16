"""Samples for stage 1: a window of sound and pose landmarks, reference faces, and the lips and jaws to predict."""

import math
from typing import Any

import numpy as np
from numpy import ndarray

from datasets.clip_cache import Clip
from datasets.sampling import Augmentation, SampledClips
from datasets.windows import sample_references, window_starts
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from media.audio import mel_windows


class LandmarkDataset(SampledClips):
    """Samples of T frames and N references of the same clip outside the window; see `SampledClips`.

    Items are dictionaries of arrays; landmarks are float32 in crop coordinates:
        mel: (T, 1, 80, 16) float32
        pose: (T, 74, 2)
        reference: (N, 131, 2)
        lip: (T, 40, 2)
        jaw: (T, 17, 2)
        boxes: (T, 4) int32, face boxes in pixels of the source frame
        name: the clip's name
        frame: first frame of the window
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, clip = self.draw(index)
        augment = self.config.augment
        augmentation = Augmentation(rng, augment)
        tempo = 1.0  # factor by which the speech is faster
        if augment.tempo:
            tempo += augment.tempo * rng.uniform(-1, 1)
        length = 1 + math.ceil(tempo * (self.num_frames - 1))
        if length >= clip.num_found or length > clip.longest_run:  # too short to be sped up
            tempo = 1.0
            length = self.num_frames
        start = int(rng.choice(window_starts(clip.found, length)))
        window = start + tempo * np.arange(self.num_frames)
        references = sample_references(rng, clip.found, np.arange(start, start + length), self.num_references)
        return make_sample(clip, window, references, augmentation, tempo)


def make_sample(
    clip: Clip, window: ndarray, references: ndarray, augmentation: Augmentation, tempo: float = 1.0
) -> dict[str, Any]:
    """Makes a sample of the moments `window` (T,), which are `tempo` frames apart, and the frames `references` (N,)."""
    stretched = augmentation.stretch(landmarks_at(clip, window))
    target = augmentation.move_landmarks(stretched, augmentation.draw_move())  # (T, 131, 2)
    reference = augmentation.move_landmarks(clip.crop_landmarks(references), augmentation.draw_move())  # (N, 131, 2)
    return {
        "mel": augmentation.change_sound(mel_windows(clip.mel, window, tempo)),
        "pose": target[:, POSE_SLICE],
        "reference": reference,
        "lip": target[:, LIP_SLICE],
        "jaw": target[:, JAW_SLICE],
        "boxes": clip.boxes[window.astype(int)],
        "name": clip.name,
        "frame": int(window[0]),
    }


def landmarks_at(clip: Clip, moments: ndarray) -> ndarray:
    """Landmarks in crop coordinates at moments (T,) in frames, interpolated between frames: (T, 131, 2)."""
    before = np.floor(moments).astype(int)
    after = np.ceil(moments).astype(int)
    share = (moments - before).astype(np.float32)[:, None, None]
    return (1 - share) * clip.crop_landmarks(before) + share * clip.crop_landmarks(after)
