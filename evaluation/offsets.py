"""By how many frames each clip's sound is off, by stage 1: sound that is late or early teaches it nothing.

SyncNet tells the same of footage (python -m preprocess --filters.max-offset); this needs none of its weights, and no
second decoding. Clips that the weights were trained on look right as they are: take those of a run's first thousands of
steps, or of a run on other clips.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.clip_cache import ClipCache
from datasets.splits import quoted
from datasets.windows import MIN_FRAMES
from evaluation.validation import Faces, predict
from face.references import lip_openness
from media.audio import COLUMNS_PER_SECOND, FPS
from metrics.lip_motion import correlation
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from runtime import command_line

LEAST = 0.2  # correlation under which a clip tells nothing
GAIN = 0.02  # of the correlation, for which sound is moved
SMOOTHING = (0.25, 0.5, 0.25)  # over neighbouring offsets


@dataclass(frozen=True)
class Config:
    """Writes a list for python -m preprocess --audio-shift: by how many frames each clip's sound is to be moved."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    output: Path
    """The list (.txt). Moves that the cache was made with are in it too."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    most: int = 5
    """Frames at 25 fps that sound may be off."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""


def correlations(networks: Networks, faces: Faces, most: int) -> np.ndarray:
    """Of the heard lips' openness with the true one's, with sound moved by -most to most frames: (2 * most + 1,)."""
    heights, found = faces.boxes[:, 3] - faces.boxes[:, 1], []
    for frames in range(-most, most + 1):
        moved = np.roll(faces.clip.mel, round(frames * COLUMNS_PER_SECOND / FPS), axis=1)
        found.append(correlation(lip_openness(predict(networks, faces, mel=moved), heights), faces.openness))
    return np.nan_to_num(found)


def best_offset(found: np.ndarray) -> int:
    """Frames that the sound is to be moved by, from `correlations` (2 * most + 1,); 0 where that is not clear."""
    smooth = np.convolve(np.pad(found, 1, mode="edge"), SMOOTHING, "valid")
    best, middle = int(smooth.argmax()), len(smooth) // 2
    return best - middle if smooth[best] >= max(LEAST, smooth[middle] + GAIN) else 0


def offsets(config: Config) -> None:
    command_line.check_output(config.output, "--output", (".txt",))
    command_line.at_least(1, most=config.most)
    cache, networks = (
        ClipCache(config.cache, None),
        Networks.from_weights(config.weights, DubConfig(device=config.device)),
    )
    lines = []
    for clip in tqdm(cache, "listening", len(cache.names), unit="clip"):
        faces = Faces(clip)
        offset = best_offset(correlations(networks, faces, config.most)) if len(faces.frames) >= MIN_FRAMES else 0
        if frames := clip.metadata["sound_shift"] + offset:
            lines.append(f"{quoted(clip.name)} frames={frames}\n")
    head = "# Frames at 25 fps that the sound is moved by before training; negative: to earlier.\n"
    command_line.write_whole(config.output, "".join([head, *lines]))
    print(f"{config.output}: the sound of {len(lines)} of {len(cache.names)} clips is to be moved")
