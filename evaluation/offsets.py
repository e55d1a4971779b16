"""Estimates by stage 1 how many frames each clip's sound is off: sound that is late or early teaches it nothing.

SyncNet measures the same on videos (python -m preprocess --filters.max-offset); this needs none of its weights and no
second decoding. Clips that the weights were trained on look right as they are: use weights of a run's first thousands
of steps, or of a run on other clips.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.clip_cache import ClipCache
from datasets.splits import quoted
from datasets.windows import MIN_FRAMES
from evaluation.validation import ClipFaces, predict, table_config
from face.references import MIDDLE
from media.audio import COLUMNS_PER_SECOND, FPS
from metrics.lip_motion import correlation
from networks import SHIPPED_WEIGHTS, Networks
from runtime import command_line

MIN_CORRELATION = 0.2  # below it the sound stays where it is
MIN_GAIN = 0.02  # of the correlation, for which sound is moved
SMOOTHING = (0.25, 0.5, 0.25)  # over neighbouring offsets


@dataclass(frozen=True)
class OffsetsConfig:
    """Writes a list for python -m preprocess --audio-shift: by how many frames each clip's sound is to be moved."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    output: Path
    """The list (.txt). Shifts that the cache was made with are included."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    most: int = 5
    """Frames at 25 fps that sound may be off."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""


def correlations(networks: Networks, faces: ClipFaces, most: int) -> np.ndarray:
    """Correlation of predicted and true lip openness with the sound moved by -most to most frames: (2 * most + 1,)."""
    scores = []
    for frames in range(-most, most + 1):
        columns = round(frames * COLUMNS_PER_SECOND / FPS)
        predicted = predict(networks, faces, mel=np.roll(faces.clip.mel, columns, axis=1))
        openness = faces.sequence(predicted).openness(MIDDLE)
        scores.append(correlation(openness, faces.openness))
    return np.nan_to_num(scores)


def best_offset(scores: np.ndarray) -> int:
    """Frames to move the sound by, from `correlations` (2 * most + 1,); 0 unless another offset is clearly better."""
    padded = np.pad(scores, 1, mode="edge")
    smooth = np.convolve(padded, SMOOTHING, "valid")
    best = int(smooth.argmax())
    middle = len(smooth) // 2
    enough = max(MIN_CORRELATION, smooth[middle] + MIN_GAIN)
    return best - middle if smooth[best] >= enough else 0


def offsets(config: OffsetsConfig) -> None:
    command_line.check_output(config.output, "--output", (".txt",))
    command_line.at_least(1, most=config.most)
    cache = ClipCache(config.cache, None)
    with command_line.naming("--weights"):
        networks = Networks.from_weights(config.weights, table_config(config.device))
    lines = []
    for clip in tqdm(cache, "listening", len(cache.names), unit="clip"):
        faces = ClipFaces(clip)
        shift = clip.metadata["sound_shift"]
        if len(faces.frames) >= MIN_FRAMES:
            shift += best_offset(correlations(networks, faces, config.most))
        if shift:
            lines.append(f"{quoted(clip.name)} frames={shift}\n")
    head = "# Frames at 25 fps that the sound is moved by before training; negative: to earlier.\n"
    command_line.write_whole(config.output, "".join([head, *lines]))
    print(f"{config.output}: the sound of {len(lines)} of {len(cache.names)} clips is to be moved")
