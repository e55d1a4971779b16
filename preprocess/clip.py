"""One video -> one clip of the cache, or the reason why not."""

import errno
import functools
import os
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.clip_cache import ClipWriter, read_metadata
from datasets.windows import MIN_FRAMES
from face import fingerprint
from face.crop import SIZE, SMOOTHING, crop_face
from face.detector import FaceDetector
from face.tracking import Tracker
from media.audio import FPS, SAMPLE_RATE, frames_for_samples, log_mel
from media.video import Video, read_audio, sound_file
from preprocess.quality import Filters, measure, sharpness_of, silent_frames
from preprocess.report import Record
from preprocess.sources import Source
from runtime.command_line import UserError

CHUNK = 8  # frames that are cropped at once
NO_FILTERS = Filters()


class _Unusable(Exception):
    """Why a video becomes no clip: a reason of a few words, to count by, and details."""

    def __init__(self, reason: str, detail: object = "", **more: object) -> None:
        self.record: Record = {"status": "failed", "reason": reason, "detail": str(detail), **more}


@contextmanager
def _unusable(reason: str) -> Iterator[None]:
    """Turns a `UserError` into `_Unusable`."""
    try:
        yield
    except UserError as error:
        raise _Unusable(reason, error) from error


@functools.cache
def shared_detector() -> FaceDetector:
    """This process's detector, for one clip after the other."""
    return FaceDetector()


def make_clip(source: Source, cache: Path, size: int = SIZE, filters: Filters = NO_FILTERS) -> Record:
    """Writes the clip of one video and returns its line of the report. Never raises for a bad video."""
    try:
        _make_clip(source, cache, size, filters)
        return record_of(cache, source.name)
    except _Unusable as error:
        unusable = error
    except OSError as error:
        reasons = {errno.ENOSPC: "disk full", errno.EACCES: "no permission"}
        unusable = _Unusable(reasons.get(error.errno or 0, "system error"), error)
    except Exception as error:  # whatever a strange file causes: the run goes on
        traceback.print_exc()
        no_memory = isinstance(error, MemoryError) or "Insufficient memory" in str(error)  # OpenCV's message
        unusable = _Unusable("too little memory" if no_memory else "unexpected error", repr(error))
        shared_detector.cache_clear()  # its state is unknown
    record = unusable.record
    detail = record["detail"].replace(str(source.path), source.path.name)  # the same wherever the folder is
    return {"name": source.name, **record, "detail": detail}


def record_of(cache: Path, name: str) -> Record:
    """The line of the report for a clip of the cache."""
    metadata = read_metadata(cache, name)
    return {
        "name": name,
        "status": "cached",
        "frames": metadata["num_frames"],
        "measures": metadata["measures"],
        "notes": metadata["notes"],
    }


def _make_clip(source: Source, cache: Path, size: int, filters: Filters) -> None:
    if source.path.exists() and not os.access(source.path, os.R_OK):
        raise _Unusable("no permission", source.path)
    with _unusable("not a video"):
        video = Video(source.path, threads=1)  # other clips keep the other cores busy
    stated_frames = video.num_frames
    sound_notes = []
    with _unusable("no sound"):
        wav = shift_sound(read_audio(sound_file(video), sound_notes), source.sound_shift)
    if not len(wav):
        raise _Unusable("no sound", f"it ends before it is moved by {source.sound_shift} frames")
    limit = frames_for_samples(len(wav))
    silent = silent_frames(wav)
    mel = log_mel(wav)
    del wav  # may be long
    with ClipWriter(cache, source.name) as writer:
        tracker = Tracker("largest", shared_detector())
        sharpness = []
        with _unusable("no picture"):
            for face in crop_faces(islice(video, limit), tracker, size):
                writer.add(face)
                if face is not None:
                    sharpness.append(sharpness_of(face))
        track = tracker.finish()
        num_frames = len(track.found)
        if video.damage:
            raise _Unusable("damaged", f"after {num_frames} frames: {video.damage}")
        if not track.found.any():
            raise _Unusable("no face", f"{num_frames} frames of {video.width} x {video.height}")
        measures = measure(track, silent, sharpness)
        failed = filters.reject(measures)
        if failed:
            raise _Unusable(failed, status="rejected", frames=num_frames, measures=measures)
        notes = []
        if stated_frames > num_frames + 1:
            seconds = (stated_frames - num_frames) / FPS
            shorter = "sound" if num_frames == limit else "picture"
            notes.append(f"{seconds:.2f} s shorter than the video says: there its {shorter} ends")
        if track.found.sum() < MIN_FRAMES:
            notes.append(f"too short to train on: {track.found.sum()} frames with a face")
        if source.sound_shift:
            notes.append(f"sound moved by {source.sound_shift} frames")
        metadata = {
            "settings": fingerprint.current(size),
            "source": source.path.name,
            "sound_shift": source.sound_shift,
            "measures": measures,
            "notes": notes + sound_notes,
        }
        writer.finish(track, mel, metadata)


def crop_faces(frames: Iterable[np.ndarray], tracker: Tracker, size: int) -> Iterator[np.ndarray | None]:
    """Tracks and crops the face of each frame (None where there is none), while a few frames are in memory."""
    frames = iter(frames)
    waiting = deque()
    at_end = False
    while not at_end:
        chunk = list(islice(frames, CHUNK))
        at_end = not chunk
        for frame in chunk:
            tracker.add(frame)
        waiting.extend(chunk)
        track = tracker.recent(len(waiting) + SMOOTHING)
        first = len(track.found) - len(waiting)
        last = len(track.found) if at_end else len(track.found) - SMOOTHING  # a box depends on the next frames
        for index in range(first, last):
            frame = waiting.popleft()
            yield crop_face(frame, track.boxes[index], size) if track.found[index] else None


def shift_sound(wav: np.ndarray, frames: int) -> np.ndarray:
    """Delays a sound (S,) by video frames, with silence in front; a negative number makes it earlier."""
    samples = frames * SAMPLE_RATE // FPS
    if samples > 0:
        return np.pad(wav, (samples, 0))
    return wav[-samples:]
