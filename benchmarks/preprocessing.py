"""python -m benchmarks.preprocessing: speed and memory of preprocessing, and what the datasets deliver."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader

from benchmarks.machine import run
from benchmarks.portrait import write_portrait
from datasets.clip_cache import ClipCache
from datasets.landmark_dataset import LandmarkDataset
from datasets.render_dataset import RenderDataset
from datasets.sampling import SamplingConfig
from face.tracking import track_faces
from media.video import Video
from preprocess.clip import make_clip, shared_detector
from preprocess.sources import Source, find_videos
from runtime import command_line
from runtime.command_line import UserError

BATCH = 32
SAMPLES = 500  # to draw from each dataset
LRS2_SIZE = (160, 160)
LRS2_SECONDS = 2.2  # mean length of a clip


@dataclass(frozen=True)
class PreprocessingBenchmarkConfig:
    """Measures preprocessing and both datasets on this machine."""

    videos: Path | None = None
    """Folder of videos to measure with; without it, videos of a swaying portrait of LRS2's size are made."""
    num_clips: int = 20
    """Number of videos."""
    memory_minutes: tuple[float, ...] = (0.5, 2)
    """Lengths of 1080p video to measure the peak memory with."""


def main(config: PreprocessingBenchmarkConfig) -> None:
    """Prints the figures as they come."""
    command_line.at_least(1, num_clips=config.num_clips)
    cv2.setNumThreads(1)  # as in a worker process; threads that wait for each other would count as work
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cache = folder / "cache"
        if config.videos is None:
            for number in range(config.num_clips):
                write_portrait(folder / f"videos/{number:03d}.mp4", LRS2_SECONDS, LRS2_SIZE)
        sources = find_videos(config.videos or folder / "videos")
        print(speed(sources[: config.num_clips], cache))
        clips = list(ClipCache(cache))
        for dataset in (LandmarkDataset(clips, 5, 15, SamplingConfig()), RenderDataset(clips, 5, 3, SamplingConfig())):
            rate = SAMPLES / seconds(partial(load, dataset))
            print(f"{type(dataset).__name__}: {rate:.0f} samples a second and worker")
        for minutes in config.memory_minutes:
            long = folder / f"long{minutes:g}"
            write_portrait(long / "portrait.mp4", 60 * minutes, (1920, 1080))
            usage = run("-m", "preprocess", "--videos", long, "--cache", long / "cache", "--workers", "1")
            print(f"1080p video of {minutes:g} minutes: {usage.peak_memory:.0f} MiB at the peak")


def speed(sources: list[Source], cache: Path) -> str:
    """Preprocesses clips, and runs the detector alone on the same videos; returns a line with both rates.

    Raises:
        UserError: no video became a clip.
    """
    usable = [source for source in sources if make_clip(source, cache)["status"] == "cached"]  # also warms up
    if not usable:
        raise UserError("--videos: no video became a clip; python -m preprocess says why")
    frames = sum(clip.num_frames for clip in ClipCache(cache))
    whole = seconds(lambda: [make_clip(source, cache) for source in usable])
    detector = seconds(lambda: [track_faces(Video(source.path), detector=shared_detector()) for source in usable])
    rate = f"{frames / whole:.0f} frames a second and core, {detector / whole:.0%} of reading and detection's speed"
    return f"{len(usable)} of {len(sources)} videos became clips: {rate}"


def load(dataset: LandmarkDataset | RenderDataset) -> None:
    """Draws samples in batches, as a worker of a data loader does."""
    for _ in DataLoader(dataset, BATCH, sampler=range(SAMPLES)):
        pass


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call, so that other programs do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    command_line.run(main, PreprocessingBenchmarkConfig, prog="python -m benchmarks.preprocessing")
