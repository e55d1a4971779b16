"""python -m benchmarks.preprocessing: what preprocessing costs beside the detector, and what the datasets deliver."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import os
import shutil
import sys
import tempfile
import time
import timeit
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut
from torch.utils.data import Dataset, default_collate

from datasets.clip_cache import OPEN_CLIPS, Clip, open_clip
from datasets.landmark_dataset import LandmarkDataset
from datasets.render_dataset import RenderDataset
from datasets.sampling import SamplingConfig
from face.crop import crop_face
from face.tracking import track_faces
from media.audio import FPS, SAMPLE_RATE
from media.video import Video
from media.writer import VideoWriter
from preprocess.clip import make_clip, shared_detector
from preprocess.sources import Source, find_videos
from runtime import command_line
from runtime.command_line import UserError
from runtime.device import memory_gib
from runtime.workers import each

LIST_CLIPS, LIST_HOURS = 45_839, 28  # LRS2's training list: so a clip of it has 55 frames
CORES = (2, 16, 64)
NUM_FRAMES = 5  # of the paper's samples
BATCH = 32


@dataclass(frozen=True)
class Config:
    """Measures preprocessing and both datasets on this machine."""

    videos: Path | None = None
    """Folder of videos to measure with; without it, a swaying portrait in LRS2's format is made."""
    num_clips: int = 20
    """How many of them."""
    samples: int = 500
    """Samples to draw from each dataset."""
    memory_minutes: tuple[float, ...] = (0.5, 2)
    """Lengths of 1080p video to measure the peak memory with."""


def main(config: Config) -> None:
    """Prints the figures, a line each, as they come."""
    command_line.at_least(1, num_clips=config.num_clips, samples=config.samples)
    if (shortest := min(config.memory_minutes, default=1)) * 60 * FPS < 1:
        raise UserError(f"--memory-minutes {shortest:g}: at least a frame is needed, {1 / 60 / FPS:.1g} minutes")
    cv2.setNumThreads(1)  # as in a data loader; threads that wait for each other would count as work
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if config.videos is None:
            for k in range(config.num_clips):
                write_portrait(folder / f"videos/{k:03d}.mp4", LIST_HOURS * 3600 / LIST_CLIPS, (160, 160), k)
        sources, _ = find_videos(config.videos or folder / "videos")
        work = partial(speed, cache=folder / "cache")
        [(_, clips)] = each(work, [sources[: config.num_clips]], 1)  # in a worker, as preprocessing runs
        if not clips:
            raise UserError("--videos: none of the videos became a clip; python -m preprocess says why")
        storage(clips, {source.name: source.path for source in sources})
        many = [copy for number in range(2 * OPEN_CLIPS // len(clips) + 1) for copy in linked(clips, number)]
        for stage, make, references in ((1, LandmarkDataset, 15), (2, RenderDataset, 3)):  # the paper's samples
            dataset = make(many, NUM_FRAMES, references, SamplingConfig())
            print(f"stage {stage}: {samples_a_second(dataset, config.samples):.0f} samples a second from one worker")
        for minutes in config.memory_minutes:
            write_portrait(folder / "long.mp4", 60 * minutes, (1920, 1080))
            source = Source(f"long{minutes}", folder / "long.mp4")
            [(_, peak)] = each(partial(peak_memory, cache=folder / "cache"), [source], 1)
            told = "its process died" if peak is None else f"{peak:.0f} MiB at the peak"
            print(f"1080p video of {minutes:g} minutes: {told}")


def write_portrait(path: Path, seconds: float, size: tuple[int, int], seed: int = 0) -> None:
    """A public-domain portrait that sways, with noise for speech."""
    path.parent.mkdir(exist_ok=True)
    face = cv2.resize(astronaut()[0:240, 110:350], (min(size), min(size)))
    speech = np.random.default_rng(seed).normal(0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)
    with VideoWriter(path, FPS, size, speech, crf=23) as writer:
        for frame in range(round(seconds * FPS)):
            sway = min(size) / 40 * np.array([np.sin(frame / 9 + seed), np.cos(frame / 7)])
            move = np.array([[1, 0, sway[0] + (size[0] - min(size)) / 2], [0, 1, sway[1]]], np.float32)
            writer.write(cv2.warpAffine(face, move, size, borderMode=cv2.BORDER_REFLECT))


def speed(sources: list[Source], cache: Path) -> list[Clip]:
    """Preprocesses clips, in turn with the detector alone on the same frames; prints both rates and their ratio."""
    detector = whole = 0.0
    records = {source: make_clip(source, cache) for source in sources}  # loads all there is to load
    lengths = {source: record["frames"] for source, record in records.items() if record["status"] == "cached"}
    for source, length in lengths.items():
        decoding = seconds(deque, islice(Video(source.path), length), 0)  # which keeps none
        pictures = islice(Video(source.path), length)
        detector += seconds(track_faces, pictures, "largest", shared_detector()) - decoding
        whole += seconds(make_clip, source, cache)
    if not (count := len(lengths)):
        return []
    frames = sum(lengths.values())
    print(f"{count} clips of {frames / count:.0f} frames on one core; {len(records) - count} videos became none")
    print(f"preprocessing {count / whole:.2f} clips a second, {frames / whole:.0f} frames a second")
    print(f"detector alone {count / detector:.2f}: preprocessing runs at {detector / whole:.1%} of it")
    need = LIST_HOURS * 60 * FPS * whole / frames
    print(f"{LIST_CLIPS} clips, {LIST_HOURS} hours: " + ", ".join(f"{need / n:.0f} min on {n} cores" for n in CORES))
    return [open_clip(cache, source.name) for source in lengths]


def storage(clips: list[Clip], paths: dict[str, Path]) -> None:
    """Bytes a frame, and how close the stored crops are to those cut from the video."""
    decibels = []
    for clip in clips:
        chosen = np.flatnonzero(clip.found)[::FPS].tolist()
        for frame, picture in zip(chosen, Video(paths[clip.name]).frames(chosen), strict=True):
            decibels.append(cv2.PSNR(crop_face(picture, clip.boxes[frame]), clip.face(frame)))
    size = sum(clip.num_bytes for clip in clips) / sum(clip.num_found for clip in clips)
    print(f"stored crops: {size:.0f} bytes a frame, PSNR {np.mean(decibels):.1f} dB, lowest {min(decibels):.1f} dB")


def linked(clips: list[Clip], number: int) -> list[Clip]:
    """The clips once more under other names, as a large data set has more of them than can stay open."""
    root = clips[0].root.with_name(f"{clips[0].root.name}_{number}")
    shutil.copytree(clips[0].root, root, copy_function=os.link)
    return [replace(clip, root=root) for clip in clips]


def samples_a_second(dataset: Dataset[dict[str, object]], count: int) -> float:
    """In batches, of one process, after a warm-up."""
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    default_collate([dataset[index] for index in batches[-1]])
    return count / seconds(lambda: [default_collate([dataset[i] for i in batch]) for batch in batches])


def seconds(work: Callable[..., object], *given: object) -> float:
    """Processor time that `work` takes over all threads, so that nothing else on the machine counts."""
    return timeit.timeit(partial(work, *given), timer=time.process_time, number=1)


def peak_memory(source: Source, cache: Path) -> float:
    """Preprocesses a clip and gives this process's peak memory in MiB; NaN where that is not known."""
    record = make_clip(source, cache)
    if record["status"] != "cached":
        print(record)
    if sys.platform == "linux":  # where ru_maxrss holds what the parent took when it started this process
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return 2**10 * memory_gib(torch.device("cpu")) or float("nan")


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m benchmarks.preprocessing")
