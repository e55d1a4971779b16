"""Makes the videos that the tables score: ours, and baselines without a renderer or without a landmark generator.

Videos are lossless. Beside each lies what it was made from, and one that was made from the same is not made again.
Workers are processes of their own.
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
    """One video to make, of that name in the tables; with its own sound it stays exactly as long as it is."""

    method: Method
    name: str
    video: Path
    audio: Path
    output: Path


def sound_of(audio: Path, num_frames: int | None) -> np.ndarray:
    """The sound (S,) of a video at 16 kHz, cut or padded to so many frames where they are given."""
    wav = read_audio(sound_file(Video(audio)))
    wanted = len(wav) if num_frames is None else num_frames * SAMPLE_RATE // FPS
    return np.pad(wav, (0, max(0, wanted - len(wav))))[:wanted]


@lru_cache(maxsize=1)
def _dubber(method: Method) -> Dubber:
    config = replace(DubConfig.for_tables(), device=method.device, num_references=method.num_references)
    return Dubber(KINDS[method.kind].from_weights(method.weights, config))


@cache
def _fingerprint(weights: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(weights.glob("*.safetensors")))).hexdigest()[:16]


def recipe(job: Job) -> str:
    """What a video is made from, in one line: other weights, sound or settings have another one."""
    method, given = job.method, (job.video, sound_file(Video(job.audio)))
    files = ", ".join(f"{path.name} ({path.stat().st_size} bytes)" for path in given)
    return f"{method.kind}, weights {_fingerprint(method.weights)}, {method.num_references} references, {files}\n"


def make(job: Job) -> str:
    """Makes one video unless it is there; returns why it can't be made, or nothing."""
    heard, made_from = (job.output.with_suffix(suffix) for suffix in (".wav", ".txt"))
    try:
        wanted = recipe(job)
        if job.output.is_file() and made_from.is_file() and made_from.read_text(encoding="utf-8") == wanted:
            return ""
        made_from.unlink(missing_ok=True)  # if this is cut off, what lies there must not pass for what lay there before
        job.output.parent.mkdir(parents=True, exist_ok=True)
        wav = sound_of(job.audio, sum(1 for _ in Video(job.video)) if job.audio == job.video else None)
        wavfile.write(heard, SAMPLE_RATE, np.round(wav * 32767).astype(np.int16))
        _dubber(job.method).dub(job.video, heard, job.output)
        made_from.write_text(wanted, encoding="utf-8")
    except Exception as error:
        return reason_of(error)
    finally:
        heard.unlink(missing_ok=True)
    return ""


def make_all(jobs: list[Job], workers: int) -> Iterator[tuple[Job, str]]:
    """Each job with its error or nothing, as they are done; in this process with one worker."""
    for unfinished in {part for job in jobs for part in job.output.parent.glob(".*.part.mp4")}:  # a killed run's
        unfinished.unlink(missing_ok=True)
    done = each(make, jobs, workers) if workers > 1 else ((job, make(job)) for job in jobs)
    return ((job, "its process died, as happens when memory is short" if why is None else why) for job, why in done)
