"""Makes the videos that the tables score: by our weights, and by baselines in place of either network.

Videos are lossless. Beside each lies its recipe, a text file that says what it was made from; a video with the same
recipe is not made again. Workers are separate processes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from evaluation.baselines import NearestReference, StaticLips
from evaluation.tables import reason_of
from inference import Dubber
from media.audio import FPS, SAMPLE_RATE
from media.video import Video, read_audio, sound_file
from networks import DubConfig, Networks
from runtime.workers import each

KINDS = {"ours": Networks, "nearest reference": NearestReference, "static lips": StaticLips}
WORKER_DIED = "its process died, as happens when memory is short"


@dataclass(frozen=True)
class Method:
    """How a row of a table is made. (Other people's rows are folders of videos.)"""

    name: str
    weights: Path
    kind: str = "ours"  # of `KINDS`
    num_references: int = 25
    device: str = "cpu"
    track_cache: Path | None = None

    @property
    def config(self) -> DubConfig:
        return replace(
            DubConfig.for_tables(),
            device=self.device,
            num_references=self.num_references,
            track_cache=self.track_cache,
        )


@dataclass(frozen=True)
class Job:
    """One video to make."""

    method: Method
    name: str  # in the tables
    video: Path
    audio: Path  # if it is the video itself, the result keeps the video's exact length
    output: Path


def read_sound(audio: Path, num_frames: int | None) -> np.ndarray:
    """The sound (S,) of a video at 16 kHz, cut or padded to a number of frames if that is given."""
    wav = read_audio(sound_file(Video(audio)))
    if num_frames is None:
        return wav
    length = num_frames * SAMPLE_RATE // FPS
    padding = max(0, length - len(wav))
    return np.pad(wav, (0, padding))[:length]


@lru_cache(maxsize=1)
def _dubber(method: Method) -> Dubber:
    return Dubber(KINDS[method.kind].from_weights(method.weights, method.config))


@cache
def _fingerprint(weights: Path) -> str:
    content = b"".join(path.read_bytes() for path in sorted(weights.glob("*.safetensors")))
    return hashlib.sha256(content).hexdigest()[:16]


def recipe(job: Job) -> str:
    """What a video is made from, in one line: it changes with the weights, the sound and the settings."""
    method = job.method
    inputs = (job.video, sound_file(Video(job.audio)))
    files = ", ".join(f"{path.name} ({path.stat().st_size} bytes)" for path in inputs)
    return f"{method.kind}, weights {_fingerprint(method.weights)}, {method.num_references} references, {files}\n"


def make_video(job: Job) -> str:
    """Makes one video unless it exists; returns the reason if that is impossible, else an empty string."""
    sound_path = job.output.with_suffix(".wav")
    recipe_path = job.output.with_suffix(".txt")
    try:
        wanted = recipe(job)
        if job.output.is_file() and recipe_path.is_file() and recipe_path.read_text(encoding="utf-8") == wanted:
            return ""
        recipe_path.unlink(missing_ok=True)  # if this is interrupted, an old recipe must not describe a new video
        job.output.parent.mkdir(parents=True, exist_ok=True)
        num_frames = sum(1 for _ in Video(job.video)) if job.audio == job.video else None
        wav = read_sound(job.audio, num_frames)
        wavfile.write(sound_path, SAMPLE_RATE, np.round(wav * 32767).astype(np.int16))
        _dubber(job.method).dub(job.video, sound_path, job.output)
        recipe_path.write_text(wanted, encoding="utf-8")
    except Exception as error:
        return reason_of(error)
    finally:
        sound_path.unlink(missing_ok=True)
    return ""


def make_videos(jobs: list[Job], workers: int) -> Iterator[tuple[Job, str]]:
    """Yields each job with the reason why it failed, or an empty string; in this process if there is one worker."""
    for folder in {job.output.parent for job in jobs}:
        for unfinished in folder.glob(".*.part.mp4"):  # of a run that was killed
            unfinished.unlink(missing_ok=True)
    if workers == 1:
        for job in jobs:
            yield job, make_video(job)
    else:
        for job, reason in each(make_video, jobs, workers):
            yield job, WORKER_DIED if reason is None else reason
