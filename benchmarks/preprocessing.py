"""python -m benchmarks.preprocessing: speed of preprocessing, beside detection alone, and of the datasets."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from benchmarks.machine import Row, print_table
from benchmarks.portrait import write_portrait
from datasets.clip_cache import ClipCache
from datasets.landmark_dataset import LandmarkDataset
from datasets.render_dataset import RenderDataset
from datasets.sampling import SamplingConfig
from face.tracking import track_faces
from media.video import Video
from preprocess.clip import make_clip, shared_detector
from preprocess.sources import Source
from runtime import command_line

CLIPS = 20
SAMPLES = 500
LRS2_SIZE = (160, 160)
LRS2_SECONDS = 2.2  # mean length of a clip


@dataclass(frozen=True)
class PreprocessingBenchmarkConfig:
    """Measures preprocessing of a video of LRS2's size, and both datasets, on one core of this machine."""


def main(config: PreprocessingBenchmarkConfig) -> None:
    """Prints a table."""
    cv2.setNumThreads(1)  # as in a worker process; threads that wait for each other would count as work
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        video = folder / "clip.mp4"
        cache = folder / "cache"
        write_portrait(video, LRS2_SECONDS, LRS2_SIZE)
        speeds = [
            measure("clips", lambda _: make_clip(Source("clip", video), cache), CLIPS),
            measure("clips, only detection", lambda _: track_faces(Video(video), detector=shared_detector()), CLIPS),
        ]
        clips = list(ClipCache(cache))
        for dataset in (LandmarkDataset(clips, 5, 15, SamplingConfig()), RenderDataset(clips, 5, 3, SamplingConfig())):
            speeds.append(measure(type(dataset).__name__, dataset.__getitem__, SAMPLES))
        print_table("One core", speeds)


def measure(name: str, work: Callable[[int], object], times: int) -> Row:
    """Calls a second of processor time, so that other programs do not count; `work` gets the number of the call."""
    work(times)  # warms up
    start = time.process_time()
    for number in range(times):
        work(number)
    return {"": name, "a second": times / (time.process_time() - start)}


if __name__ == "__main__":
    command_line.run(main, PreprocessingBenchmarkConfig, prog="python -m benchmarks.preprocessing")
