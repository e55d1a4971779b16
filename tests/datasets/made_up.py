"""Synthetic clips for the tests of everything that reads a cache: no video, no detector."""

from pathlib import Path

import numpy as np

from datasets.clip_cache import Clip, ClipCache, ClipWriter
from face import fingerprint
from face.tracking import FaceTrack
from media.audio import COLUMNS_PER_SECOND, FPS, N_MELS


def write_clip(
    root: Path, name: str, num_frames: int = 30, missing: tuple[int, ...] = (), size: int = 128, seed: int = 0
) -> Clip:
    """Writes a clip of a smooth picture whose landmarks are random points in a slightly moving box."""
    rng = np.random.default_rng(seed)
    found = np.ones(num_frames, dtype=bool)
    found[list(missing)] = False
    boxes = np.array([10, 20, 100, 140]) + np.arange(num_frames)[:, None] % 3
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    landmarks = (low + (high - low) * rng.uniform(0.05, 0.95, (num_frames, 131, 2))).astype(np.float32)
    landmarks[~found] = np.nan
    ramp = np.linspace(0, 200, size)
    columns = num_frames * COLUMNS_PER_SECOND // FPS
    with ClipWriter(root, name) as writer:
        for frame in range(num_frames):
            face = np.stack([*np.meshgrid(ramp, ramp), np.full((size, size), 5 * frame % 256)], axis=2)
            writer.add(face.astype(np.uint8) if found[frame] else None)
        shots = np.zeros(num_frames, int)
        track = FaceTrack(landmarks, (160, 200), shots + 1, shots)
        track.boxes = np.where(found[:, None], boxes, 0).astype(np.int32)
        mel = rng.uniform(-4, 4, (columns, N_MELS)).astype(np.float32).T
        metadata = {
            "settings": fingerprint.current(size),
            "source": f"{name}.mp4",
            "sound_shift": 0,
            "measures": {"cuts": 0, "face": 90.0},
        }
        writer.finish(track, mel, metadata)
    return ClipCache(root, size).open(name)
