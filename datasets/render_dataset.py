"""Samples for stage 2: a frame whose lower half is hidden, its sketches and sound, and reference faces with theirs."""

from typing import Any

import numpy as np
import torch

from datasets.clip_cache import Clip
from datasets.sampling import Augmentation, SampledClips
from datasets.windows import sample_references
from face.references import nearest_references
from face.sketch import draw_sketches
from media.audio import FPS, mel_windows
from media.timing import window_frames


class RenderDataset(SampledClips):
    """Frames with `num_frames` (T) sketches around them, and `num_references` (N) faces outside that window.

    Items (float32 tensors, RGB in [0, 1]): target (3, S, S), masked_target: the same with rows from S / 2 on zero,
    target_sketches (T, 1, S, S), reference_images (N, 3, S, S) and reference_sketches (N, 1, S, S), mel (1, 80, 16),
    landmarks (131, 2) and reference_landmarks (N, 131, 2) in the crop; name: of the clip, frame: the target's.

    Raises:
        UserError: no clip is long enough.
    """

    def __init__(self, *arguments: Any, candidates: int = 0, **options: Any) -> None:
        """As `SampledClips`; with `candidates`, the references are the nearest to the target of so many drawn ones."""
        super().__init__(*arguments, **options)
        self.candidates = candidates

    def __getitem__(self, index: int) -> dict[str, object]:
        rng, clip = self.draw(index)
        windows = window_frames(clip.num_frames, self.num_frames, FPS)  # (F, T)
        frame = int(rng.choice(np.flatnonzero(clip.found[windows].all(axis=1))))
        window = windows[frame]
        references = sample_references(rng, clip.found, window, max(self.candidates, self.num_references))
        if self.candidates:
            target_points, points = clip.crop_landmarks(np.array([frame])), clip.crop_landmarks(references)
            references = references[nearest_references(target_points, points, self.num_references)[0]]
        augmentation = Augmentation(rng, self.config.augment)
        target, target_sketches, window_points = _draw(clip, frame, window, augmentation)
        drawn = [_draw(clip, reference, np.array([reference]), augmentation) for reference in references]
        masked_target = target.clone()
        masked_target[:, target.shape[1] // 2 :] = 0
        return {
            "target": target,
            "masked_target": masked_target,
            "target_sketches": target_sketches,
            "reference_images": torch.stack([image for image, _, _ in drawn]),
            "reference_sketches": torch.cat([sketch for _, sketch, _ in drawn]),
            "landmarks": torch.from_numpy(window_points[len(window) // 2]),
            "reference_landmarks": torch.from_numpy(np.concatenate([points for _, _, points in drawn])),
            "mel": torch.from_numpy(mel_windows(clip.mel, np.array([frame]))[0]),
            "name": clip.name,
            "frame": frame,
        }


def _draw(
    clip: Clip, frame: int, window: np.ndarray, augmentation: Augmentation
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The face of `frame` (3, S, S); of the frames of `window` grey sketches (n, 1, S, S), landmarks (n, 131, 2)."""
    move = augmentation.move()
    face = augmentation.face(clip.face(frame), move)
    x0, y0, x1, y1 = (int(side) for side in clip.boxes[frame])
    landmarks_in_crop = augmentation.landmarks(clip.crop_landmarks(window), move)
    sketches = draw_sketches(landmarks_in_crop, y1 - y0, x1 - x0, len(face))  # (n, S, S)
    image = torch.from_numpy(face).permute(2, 0, 1).float().div_(255)
    return image, torch.from_numpy(sketches).div_(255)[:, None], landmarks_in_crop
