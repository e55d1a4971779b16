"""Makes the videos that the tables score: ours, and baselines without a renderer or without a landmark generator.

Videos are lossless, and what is there already is not made again. Workers are processes of their own.
"""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.io import wavfile

from command_line import UserError
from evaluation import baselines
from face.compositing import paste_face
from face.crop import SIZE, crop_face, to_crop, to_frame
from face.references import lip_openness, spread_over_openness
from face.tracking import track_faces
from inference import NUM_LANDMARK_REFERENCES, Dubber, fill_gaps, ping_pong
from media.audio import FPS, SAMPLE_RATE, frames_for_samples, log_mel
from media.video import Video, VideoWriter, read_audio


@dataclass(frozen=True)
class Method:
    """How a row of a table is made. Another method's row is a folder of its videos."""

    name: str
    weights: Path
    kind: Literal["ours", "nearest reference", "static lips"] = "ours"
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


class StaticLips(Dubber):
    """Draws a mouth that never moves: what stage 2 alone makes of a face."""

    def predict_landmarks(
        self, landmarks_in_crop: np.ndarray, references: np.ndarray, mel: np.ndarray, fps: float = FPS
    ) -> np.ndarray:
        return baselines.static_lips(landmarks_in_crop, references)


def sound_of(audio: Path, num_frames: int | None) -> np.ndarray:
    """The sound (S,) at 16 kHz, cut or padded to so many frames where they are given."""
    wav = read_audio(audio)
    wanted = len(wav) if num_frames is None else num_frames * SAMPLE_RATE // FPS
    return np.pad(wav, (0, max(0, wanted - len(wav))))[:wanted]


def nearest_reference(dubber: Dubber, video: Path, wav: np.ndarray, output: Path) -> None:
    """Stage 1 and, in place of stage 2, the aligned nearest reference pasted into the lower half."""
    source = Video(video)
    track = track_faces(source)
    seen, marks, boxes = np.flatnonzero(track.found), track.landmarks_in_frame, track.boxes
    if not len(seen):
        raise UserError(f"{video}: no face was found in any frame")
    order = ping_pong(len(track.found), frames_for_samples(len(wav)))
    in_crop, filled = to_crop(marks, boxes), fill_gaps(track.found)[order]
    openness = lip_openness(in_crop[seen], 1.0)
    heard, shown = (seen[spread_over_openness(openness, n)] for n in (NUM_LANDMARK_REFERENCES, dubber.num_references))
    wanted = to_frame(dubber.predict_landmarks(in_crop[filled], in_crop[heard], log_mel(wav)), boxes[filled])
    crops = np.stack([crop_face(f, b, SIZE) for f, b in zip(source.frames(shown), boxes[shown], strict=True)])
    with VideoWriter(output, FPS, track.frame_size, wav, lossless=True) as writer:
        for i, new, frame in zip(order, wanted, source.frames(order), strict=True):
            result = frame
            if track.found[i]:
                target = crop_face(frame, boxes[i], SIZE)
                face = baselines.paste_nearest(target, boxes[i], new, crops, boxes[shown], marks[shown])
                result = paste_face(frame, face.astype(np.float32) / 255, boxes[i], marks[i], new)
            writer.write(result)


@lru_cache(maxsize=1)
def _dubber(method: Method) -> Dubber:
    maker = StaticLips if method.kind == "static lips" else Dubber
    return maker.from_weights(method.weights, method.device, num_references=method.num_references)


def make(job: Job) -> str:
    """Makes one video unless it is there; returns why it can't be made, or nothing."""
    if job.output.is_file():
        return ""
    job.output.parent.mkdir(parents=True, exist_ok=True)
    heard = job.output.with_suffix(".wav")
    try:
        wav = sound_of(job.audio, sum(1 for _ in Video(job.video)) if job.audio == job.video else None)
        if job.method.kind == "nearest reference":
            nearest_reference(_dubber(job.method), job.video, wav, job.output)
        else:
            wavfile.write(heard, SAMPLE_RATE, np.round(wav * 32767).astype(np.int16))
            _dubber(job.method).dub(job.video, heard, job.output, lossless=True, progress=False)
    except UserError as error:
        return str(error)
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
