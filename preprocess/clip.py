"""One video -> one clip of the cache, or the reason why not."""

import errno
import functools
import os
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy import ndarray

from datasets.clip_cache import ClipWriter, read_metadata
from face import fingerprint
from face.crop import SMOOTHING, crop_face
from face.detector import FaceDetector
from face.tracking import Tracker
from media.audio import FPS, SAMPLE_RATE, frames_for_samples, log_mel
from media.video import Video, read_audio, sound_file
from preprocess.quality import Filters, measure, sharpness_of, silent_frames, sync_scorer
from preprocess.report import Record
from preprocess.sources import Source
from runtime.command_line import UserError, naming


@functools.cache
def shared_detector() -> FaceDetector:
    """This process's detector, which its clips use one after the other."""
    return FaceDetector()


def make_clip(source: Source, cache: Path, size: int, filters: Filters) -> Record:
    """Writes the clip of one video and returns its line of the report. A bad video raises no error."""
    try:
        return _make_clip(source, cache, size, filters)
    except UserError as error:
        reason, _, detail = str(error).partition(": ")
    except OSError as error:
        reasons = {errno.ENOSPC: "disk full", errno.EACCES: "no permission"}
        reason = reasons.get(error.errno or 0, "system error")
        detail = str(error)
    except Exception as error:  # whatever a strange file causes, the run goes on
        traceback.print_exc()
        no_memory = isinstance(error, MemoryError) or "Insufficient memory" in str(error)  # OpenCV's message
        reason = "too little memory" if no_memory else "unexpected error"
        detail = repr(error)
        shared_detector.cache_clear()  # its state is unknown
    detail = detail.replace(str(source.path), source.path.name)  # so that reports don't depend on the folder
    return {"name": source.name, "status": "failed", "reason": reason, "detail": detail}


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


def _make_clip(source: Source, cache: Path, size: int, filters: Filters) -> Record:
    """Like `make_clip`, but raises UserErrors that begin with a short reason, for the summary, and a colon."""
    if source.path.exists() and not os.access(source.path, os.R_OK):
        raise UserError(f"no permission: {source.path}")
    with naming("not a video"):
        video = Video(source.path, threads=1)  # other clips keep the other cores busy
    stated_frames = video.num_frames
    sound_notes = []
    with naming("no sound"):
        wav = shift_sound(read_audio(sound_file(video), sound_notes), source.sound_shift)
    if not len(wav):
        raise UserError(f"no sound: none is left after a shift by {source.sound_shift} frames")
    limit = frames_for_samples(len(wav))
    silent = silent_frames(wav)
    mel = log_mel(wav)
    sound = wav if filters.max_offset is not None else None
    del wav  # may be long
    with ClipWriter(cache, source.name) as writer:
        tracker = Tracker("largest", shared_detector())
        sharpness = []
        with naming("no picture"):
            for face in crop_faces(islice(video, limit), tracker, size):
                writer.add(face)
                if face is not None:
                    sharpness.append(sharpness_of(face))
        track = tracker.finish()
        num_frames = len(track.found)
        if video.damage:
            raise UserError(f"damaged: after {num_frames} frames: {video.damage}")
        if not track.found.any():
            raise UserError(f"no face: {num_frames} frames of {video.width} x {video.height}")
        measures = measure(track, silent, sharpness)
        if sound is not None:
            measures["offset"] = sync_scorer()(video, sound)
        reason = filters.reject(measures)
        if reason:
            return {
                "name": source.name,
                "status": "rejected",
                "reason": reason,
                "detail": "",
                "frames": num_frames,
                "measures": measures,
            }
        notes = []
        if stated_frames > num_frames + 1:
            seconds = (stated_frames - num_frames) / FPS
            shorter = "sound" if num_frames == limit else "picture"
            notes.append(f"{seconds:.2f} s shorter than the video states: its {shorter} ends early")
        metadata = {
            "settings": fingerprint.current(size),
            "source": source.path.name,
            "sound_shift": source.sound_shift,
            "measures": measures,
            "notes": notes + sound_notes,
        }
        writer.finish(track, mel, metadata)
    return record_of(cache, source.name)


def crop_faces(frames: Iterable[ndarray], tracker: Tracker, size: int) -> Iterator[ndarray | None]:
    """Tracks and crops the face of each frame (None where there is none); holds a few frames in memory."""
    waiting = deque()

    def crop_first() -> ndarray | None:
        track = tracker.recent(len(waiting) + SMOOTHING)
        index = -len(waiting)
        frame = waiting.popleft()
        return crop_face(frame, track.boxes[index], size) if track.found[index] else None

    for frame in frames:
        tracker.add(frame)
        waiting.append(frame)
        if len(waiting) > SMOOTHING:  # a box depends on the next frames
            yield crop_first()
    while waiting:
        yield crop_first()


def shift_sound(wav: ndarray, frames: int) -> ndarray:
    """Delays a sound (S,) by video frames, with silence in front; a negative number cuts off its start instead."""
    samples = frames * SAMPLE_RATE // FPS
    if samples > 0:
        return np.pad(wav, (samples, 0))
    return wav[-samples:]
