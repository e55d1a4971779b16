"""Small synthetic videos of a public-domain face with a painted mouth, and tiny untrained weights."""

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from skimage import data

from evaluation.tables import ClipScore, Row, Table
from media.audio import FPS, SAMPLE_RATE
from media.writer import VideoWriter
from models import weights
from models.lite.landmark_generator import LiteLandmarkGenerator, LiteLandmarkGeneratorConfig
from models.lite.renderer import LiteRenderer, LiteRendererConfig


def reasons(row: Row) -> dict[str, str]:
    """Maps each failed clip to the reason of its failure."""
    return {clip.clip: clip.reason for clip in row.clips if clip.reason}


def read_table(path: Path) -> Table:
    """Reads the table of a .json file."""
    content = json.loads(path.read_text())
    rows = [Row(row["name"], row["cells"], [ClipScore(**clip) for clip in row["clips"]]) for row in content["rows"]]
    return Table(content["title"], rows, content["notes"])


@cache
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[10:210, 120:320])


def frame(index: int, brightness: int = 0) -> np.ndarray:
    """(200, 200, 3) RGB: a swaying face whose mouth is painted open in every other quarter second."""
    picture = portrait().copy()
    if index // 6 % 2:
        cv2.ellipse(picture, (104, 137), (14, 7), 0, 0, 360, (60, 20, 20), -1)
    turn = np.array([[1, 0, 4 * np.sin(index / 5)], [0, 1, 3 * np.cos(index / 4)]])
    return np.clip(cv2.warpAffine(picture, turn, (200, 200)).astype(int) + brightness, 0, 255).astype(np.uint8)


def speech(frames: int, seed: int) -> np.ndarray:
    """Noise (S,) in bursts of a quarter second, as long as a number of frames."""
    count = frames * SAMPLE_RATE // FPS
    noise = np.random.default_rng(seed).standard_normal(count) * 0.1
    return (noise * (np.arange(count) // (SAMPLE_RATE // 4) % 2)).astype(np.float32)


def write(path: Path, frames: list[np.ndarray], seed: int = 0, fps: float = FPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = path.with_suffix(".sound.wav")
    wavfile.write(sound, SAMPLE_RATE, speech(round(len(frames) * FPS / fps), seed))
    size = (frames[0].shape[1], frames[0].shape[0])
    with VideoWriter(path, fps, size, [(sound, 0.0)], lossless=True) as writer:
        for picture in frames:
            writer.write(picture)
    sound.unlink()
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers with a clip each, of 8 and 10 frames, with moving mouths."""
    root = tmp_path_factory.mktemp("videos")
    write(root / "ann" / "one.mp4", [frame(i + 2) for i in range(8)], 1)
    write(root / "bob" / "two.mp4", [frame(i + 2, 20) for i in range(10)], 2)
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, as inference expects it."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    landmark = LiteLandmarkGeneratorConfig(
        num_frames=5, width=32, layers=1, heads=2, feed_forward=32, audio_width=2, landmark_width=1, norm_first=False
    )
    renderer = LiteRendererConfig(
        sketch_channels=1,
        shallow=4,
        deep=8,
        alignment_deep=8,
        modulation=4,
        style_hidden=4,
        audio_width=2,
        kernel=7,
    )
    weights.save(LiteLandmarkGenerator(landmark), folder / "landmark_generator.safetensors", {})
    weights.save(LiteRenderer(renderer), folder / "renderer.safetensors", {})
    return folder
