"""Makes the videos that the tables score: ours, and baselines without a renderer or without a landmark generator.

Videos are lossless, and what is there already is not made again. Workers are processes of their own.
"""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile

from command_line import UserError
from evaluation.baselines import NearestReference, StaticLips
from inference import Dubber
from media.audio import FPS, SAMPLE_RATE
from media.video import Video, read_audio

KINDS = {"ours": Dubber, "nearest reference": NearestReference, "static lips": StaticLips}


@dataclass(frozen=True)
class Method:
    """How a row of a table is made. Another method's row is a folder of its videos."""

    name: str
    weights: Path
    kind: str = "ours"  # of `KINDS`
    num_references: int = 25
    device: str = "cpu"


@dataclass(frozen=True)
class Job:
    """One video to make; with its own sound it stays exactly as long as it is."""

    method: Method
    clip: str
    video: Path
    audio: Path
    output: Path


def sound_of(audio: Path, num_frames: int | None) -> np.ndarray:
    """The sound (S,) at 16 kHz, cut or padded to so many frames where they are given."""
    wav = read_audio(audio)
    wanted = len(wav) if num_frames is None else num_frames * SAMPLE_RATE // FPS
    return np.pad(wav, (0, max(0, wanted - len(wav))))[:wanted]


@lru_cache(maxsize=1)
def _dubber(method: Method) -> Dubber:
    return KINDS[method.kind].from_weights(method.weights, method.device, num_references=method.num_references)


def make(job: Job) -> str:
    """Makes one video unless it is there; returns why it can't be made, or nothing."""
    if job.output.is_file():
        return ""
    job.output.parent.mkdir(parents=True, exist_ok=True)
    heard = job.output.with_suffix(".wav")
    try:
        wav = sound_of(job.audio, sum(1 for _ in Video(job.video)) if job.audio == job.video else None)
        wavfile.write(heard, SAMPLE_RATE, np.round(wav * 32767).astype(np.int16))
        _dubber(job.method).dub(job.video, heard, job.output, lossless=True, progress=False)
    except (UserError, RuntimeError, OSError) as error:  # one clip's trouble is not the table's
        return f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    finally:
        heard.unlink(missing_ok=True)
    return ""


def make_all(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, str]]:
    """Each job with its error or nothing, as they are done; in this process with one worker."""
    jobs = list(jobs)
    if workers <= 1:
        yield from ((job, make(job)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        tasks = {pool.submit(make, job): job for job in jobs}
        for task in as_completed(tasks):
            yield tasks[task], task.result()
