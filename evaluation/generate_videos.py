"""Makes the videos that the tables score, from our weights and from baselines in place of either network.

Videos are lossless. Each has a recipe beside it, a text file that says what it was made from; a video whose recipe is
unchanged is not made again. Workers are separate processes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pooch
from scipy.io import wavfile
from tqdm import tqdm

from evaluation.baselines import NearestReference, StaticLips
from evaluation.protocol import read_sound
from evaluation.tables import reason_of
from inference import Dubber
from media.audio import SAMPLE_RATE
from media.video import Video, sound_file
from networks import DubConfig, Networks
from runtime.workers import map_unordered

BASELINES = {"nearest reference": NearestReference, "static lips": StaticLips}
WORKER_DIED = "its process died, perhaps for lack of memory"

Originals = dict[str, tuple[Path, Path]]  # clip -> its video, and the video whose sound it gets
Rows = dict[str, dict[str, Path | str]]  # row -> clip -> video, or why there is none
Task = TypeVar("Task")


@dataclass(frozen=True)
class Method:
    """How one row of a table is made. (Rows of other methods are folders of videos.)"""

    name: str
    weights: Path
    config: DubConfig
    kind: str = "ours"  # or one of `BASELINES`


@dataclass(frozen=True)
class Job:
    """One video to make."""

    method: Method
    clip: str
    video: Path
    audio: Path  # if this is the video itself, the result keeps the video's exact length
    output: Path


@lru_cache(maxsize=1)
def _dubber(method: Method) -> Dubber:
    return Dubber(BASELINES.get(method.kind, Networks).from_weights(method.weights, method.config))


@cache
def _fingerprint(weights: Path) -> str:
    return " ".join(pooch.file_hash(str(path))[:8] for path in sorted(weights.glob("*.safetensors")))


def recipe(job: Job) -> str:
    """Returns one line that says what a video is made from; it changes with the weights, sound and settings."""
    method = job.method
    inputs = (job.video, sound_file(Video(job.audio)))
    files = ", ".join(f"{path.name} ({path.stat().st_size} bytes)" for path in inputs)
    number = method.config.num_references
    return f"{method.kind}, weights {_fingerprint(method.weights)}, {number} references, {files}\n"


def make_video(job: Job) -> str:
    """Makes one video unless it exists. Returns why it could not be made, or an empty string."""
    recipe_path = job.output.with_suffix(".txt")
    try:
        text = recipe(job)
        if job.output.is_file() and recipe_path.is_file() and recipe_path.read_text(encoding="utf-8") == text:
            return ""
        recipe_path.unlink(missing_ok=True)  # after an interruption no old recipe may describe a new video
        job.output.parent.mkdir(parents=True, exist_ok=True)
        num_frames = sum(1 for _ in Video(job.video)) if job.audio == job.video else None
        with TemporaryDirectory() as folder:
            sound = Path(folder) / "sound.wav"
            wavfile.write(sound, SAMPLE_RATE, read_sound(job.audio, num_frames))
            _dubber(job.method).dub(job.video, sound, job.output)
        recipe_path.write_text(text, encoding="utf-8")
    except Exception as error:
        return reason_of(error)
    return ""


def do_all(
    work: Callable[[Task], str], tasks: list[Task], workers: int, description: str
) -> Iterator[tuple[Task, str]]:
    """Yields each task with the result of `work`, or `WORKER_DIED`. A single worker is this process itself."""
    results = zip(tasks, map(work, tasks), strict=True) if workers == 1 else map_unordered(work, tasks, workers)
    for task, result in tqdm(results, description, len(tasks)):
        yield task, WORKER_DIED if result is None else result


def make_videos(methods: list[Method], originals: Originals, folder: Path, workers: int) -> Rows:
    """Makes the rows of all methods, one method after the other, because a process keeps the networks of only one."""
    jobs = []
    for method in methods:
        for clip, (video, audio) in originals.items():
            jobs.append(Job(method, clip, video, audio, folder / method.name / f"{clip}.mp4"))
    rows: Rows = {method.name: {} for method in methods}
    for job, reason in do_all(make_video, jobs, workers, "making"):
        rows[job.method.name][job.clip] = reason or job.output
    return rows
