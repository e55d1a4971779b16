"""Samples for stage 2: a frame with its lower half masked, its sketches and sound, and references with sketches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from datasets.clip_cache import Clip
from datasets.sampling import Augmentation, SampledClips
from datasets.windows import sample_references
from face.crop import lower_half, sides
from face.references import nearest_references
from face.sketch import draw_sketches
from media.audio import FPS, mel_windows
from media.timing import window_frames


@dataclass
class RenderDataset(SampledClips):
    """Samples of a target frame, T sketches around it, and N references outside that window; see `SampledClips`.

    Items are dictionaries; arrays are float32, pictures RGB in [0, 1] of S x S pixels, landmarks in crop coordinates:
        target: (3, S, S)
        masked_target: (3, S, S), the target with its lower half zero
        target_sketches: (T, 1, S, S)
        reference_images: (N, 3, S, S)
        reference_sketches: (N, 1, S, S)
        landmarks: (131, 2) of the target
        reference_landmarks: (N, 131, 2)
        mel: (1, 80, 16)
        name: the clip's name
        frame: the target's frame
    """

    candidates: int = 0
    """If positive, draw this many frames (fewer from a short clip) and take the nearest to the target as references."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, clip = self.draw(index)
        windows = window_frames(clip.num_frames, self.num_frames, FPS)  # (F, T)
        usable = clip.found[windows].all(axis=1)
        frame = int(rng.choice(np.flatnonzero(usable)))
        window = windows[frame]
        available = min(self.candidates, clip.num_found - self.num_frames)  # candidates must not repeat
        references = sample_references(rng, clip.found, window, max(available, self.num_references))
        if self.candidates:
            target_landmarks = clip.crop_landmarks(np.array([frame]))
            nearest = nearest_references(target_landmarks, clip.crop_landmarks(references), self.num_references)
            references = references[nearest[0]]
        augmentation = Augmentation(rng, self.config.augment)
        target, target_sketches, window_landmarks = _load_face(clip, frame, window, augmentation)
        faces = [_load_face(clip, reference, np.array([reference]), augmentation) for reference in references]
        images, sketches, landmarks = zip(*faces, strict=True)
        masked_target = target.copy()
        masked_target[:, lower_half(target.shape[1])] = 0
        return {
            "target": target,
            "masked_target": masked_target,
            "target_sketches": target_sketches,
            "reference_images": np.stack(images),
            "reference_sketches": np.concatenate(sketches),
            "landmarks": window_landmarks[len(window) // 2],
            "reference_landmarks": np.concatenate(landmarks),
            "mel": mel_windows(clip.mel, np.array([frame]))[0],
            "name": clip.name,
            "frame": frame,
        }


def _load_face(clip: Clip, frame: int, window: ndarray, augmentation: Augmentation) -> tuple[ndarray, ...]:
    """The face crop of `frame` (3, S, S), and sketches (n, 1, S, S) and landmarks (n, 131, 2) of `window` (n,)."""
    move = augmentation.draw_move()
    face = augmentation.change_face(clip.face(frame), move)
    landmarks_in_crop = augmentation.move_landmarks(clip.crop_landmarks(window), move)
    width, height = sides(clip.boxes[frame])
    sketches = draw_sketches(landmarks_in_crop, height, width, len(face))  # (n, S, S)
    image = face.transpose(2, 0, 1) / np.float32(255)
    return image, sketches[:, None] / np.float32(255), landmarks_in_crop
