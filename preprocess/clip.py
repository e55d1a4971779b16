"""One video -> one clip of the cache, or the reason why not."""

import errno
import functools
import os
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from datasets.clip_cache import Clip, ClipWriter, open_clip
from datasets.windows import MIN_FRAMES
from face import fingerprint
from face.crop import SIZE, crop_face
from face.detector import FaceDetector
from face.tracking import fill_gaps, track_faces
from media.audio import FPS, SAMPLE_RATE, LogMel, blocks, frames_for_samples
from media.video import Video, audio_pieces, sound_file
from preprocess.quality import Filters, measure, rejected_by, sharpness_of, silent_frames, sync_scorer
from preprocess.report import Record
from preprocess.sources import Source
from runtime.command_line import UserError

KEPT_BYTES = 2**27  # clips whose frames take less are kept in memory, others are decoded twice
KEPT_MEL = 2**22  # bytes of mel kept in memory (three minutes); more goes through a file
NO_FILTERS = Filters()
REASONS = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk full", errno.EACCES: "no permission"}


class _Unusable(Exception):
    """reason: a few words to count by; detail: what exactly."""

    def __init__(self, reason: str, detail: object = "", status: str = "failed", **more: object) -> None:
        self.record: Record = {"status": status, "reason": reason, "detail": str(detail), **more}


@contextmanager
def _otherwise(reason: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise _Unusable(reason, error) from error


@functools.cache
def shared_detector() -> FaceDetector:
    """Of this process, for one clip after the other."""
    return FaceDetector()


def make_clip(source: Source, cache: Path, size: int = SIZE, filters: Filters = NO_FILTERS) -> Record:
    """Writes the clip of one video and returns its line of the report. Never raises for a bad video."""
    try:
        _make_clip(source, cache, size, filters)
        return record_of(open_clip(cache, source.name))
    except _Unusable as error:
        unusable = error
    except OSError as error:
        unusable = _Unusable(REASONS.get(error.errno or 0, "system error"), error)
    except Exception as error:  # whatever a strange file brings about: the run goes on
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        short = isinstance(error, MemoryError) or "Insufficient memory" in str(error)  # OpenCV's
        unusable = _Unusable("too little memory" if short else "unexpected error", what)
        shared_detector.cache_clear()  # nobody knows its state
    detail = unusable.record["detail"].replace(str(source.path), source.path.name)  # the same wherever the folder lies
    return {"name": source.name, **unusable.record, "detail": detail}


def record_of(clip: Clip) -> Record:
    """The line of the report that belongs to a clip of the cache."""
    told = {key: clip.metadata[key] for key in ("measures", "notes")}
    return {"name": clip.name, "status": "cached", "frames": clip.num_frames, **told}


def _make_clip(source: Source, cache: Path, size: int, filters: Filters) -> None:
    if source.path.exists() and not os.access(source.path, os.R_OK):
        raise _Unusable("no permission", source.path)
    with _otherwise("not a video"):
        video = Video(source.path, threads=1)  # other clips keep the other cores busy
    with tempfile.SpooledTemporaryFile(KEPT_MEL) as mel:
        with _otherwise("no sound"):
            path, damage = sound_file(video), list[str]()
            silent, limit = _hear(shift_sound(audio_pieces(path, damage), source.sound_shift), mel)
        if not limit:
            raise _Unusable("no sound", f"it ends before it is moved by {source.sound_shift} frames")
        lip_sync = None
        if filters.syncnet:  # which takes the sound whole
            wav = np.concatenate([*shift_sound(audio_pieces(path), source.sound_shift)])
            lip_sync = sync_scorer(filters.syncnet)(wav)
        estimate = video.num_frames
        fits = limit * video.width * video.height * 3 <= KEPT_BYTES
        with _otherwise("no picture"):
            kept = [*islice(video, limit)] if fits else []
            track = track_faces(kept or islice(video, limit), detector=shared_detector())
        seen = len(track.found)
        if video.damage:
            raise _Unusable("damaged", f"after {seen} frames: {video.damage}")
        if not track.found.any():
            raise _Unusable("no face", f"{seen} frames of {video.width} x {video.height}")

        with ClipWriter(cache, source.name) as writer:
            sharpness: list[float] = []
            nearest = track.boxes[fill_gaps(track.found)]  # (F, 4)
            for frame, box, found in zip(kept or islice(video, seen), nearest, track.found, strict=True):
                face = crop_face(frame, box, size) if found else None
                writer.add(face)
                if face is not None:
                    sharpness.append(sharpness_of(face))
                if lip_sync:
                    lip_sync.add(frame, box)
            figures = measure(track, silent, sharpness)
            if lip_sync:  # of a clip of a few frames it knows nothing
                result = lip_sync.finish()
                offset, confidence = np.nan_to_num([result.offset, result.confidence])
                figures |= {"offset": int(offset), "confidence": round(float(confidence), 3)}
            if reason := rejected_by(figures, filters):
                raise _Unusable(reason, status="rejected", frames=seen, measures=figures)
            metadata = {
                "settings": fingerprint.current(size),
                "source": source.path.name,
                "frame_size": track.frame_size,
                "sound_shift": source.sound_shift,
                "measures": figures,
                "notes": _notes(source, seen, int(track.found.sum()), limit, estimate) + damage,
            }
            writer.finish(track.landmarks_in_frame, track.boxes, track.found, mel, metadata)


def _hear(pieces: Iterable[np.ndarray], mel: IO[bytes]) -> tuple[np.ndarray, int]:
    """Writes the sound's mel to a file, column by column; which frames are silent, and how many it lasts."""
    stream, silent, samples = LogMel(), [np.zeros(0, bool)], 0
    for block in blocks(pieces):
        samples += len(block)
        silent.append(silent_frames(block))
        mel.write(stream.add(block).T.tobytes())
    mel.write(stream.finish().T.tobytes())
    return np.concatenate(silent), frames_for_samples(samples)


def shift_sound(pieces: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Moves sound in pieces (n,) by video frames: to later with silence in front, or (negative) to earlier."""
    samples = frames * SAMPLE_RATE // FPS
    yield np.zeros(max(0, samples), np.float32)
    early = max(0, -samples)  # left to drop
    for piece in pieces:
        yield piece[early:]
        early -= min(early, len(piece))


def _notes(source: Source, seen: int, found: int, limit: int, estimate: int) -> list[str]:
    notes = []
    if estimate > seen + 1:
        ends = "sound" if seen == limit else "picture"
        notes.append(f"{(estimate - seen) / FPS:.2f} s shorter than the video says: there its {ends} ends")
    if found < MIN_FRAMES:
        notes.append(f"too short to train on: {found} frames with a face")
    if source.sound_shift:
        notes.append(f"sound moved by {source.sound_shift} frames")
    return notes
