"""One video -> one clip of the cache, or the reason why not."""

import errno
import os
import traceback
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from command_line import UserError
from datasets import settings
from datasets.clip_cache import ClipWriter, open_clip
from datasets.windows import MIN_FRAMES
from face.crop import SIZE, crop_face
from face.tracking import Tracker
from media.audio import FPS, SAMPLE_RATE, frames_for_samples, log_mel
from media.video import Video, has_audio, read_audio
from preprocess.quality import Filters, Measures, fit_mouth, rejected_by, silent_frames, sync_scorer
from preprocess.report import Record
from preprocess.sources import SOUND_SUFFIX, Source

KEPT_BYTES = 2**27  # clips whose frames take less are kept in memory, others are decoded twice


@dataclass(frozen=True)
class Options:
    """What is the same for all clips of a run."""

    cache: Path
    size: int = SIZE
    filters: Filters = field(default_factory=Filters)


class _Unusable(Exception):
    """reason: a few words to count by; detail: what exactly."""

    def __init__(self, reason: str, detail: object = "", status: str = "failed", **more: object) -> None:
        super().__init__(reason)
        self.record: Record = {"status": status, "reason": reason, "detail": str(detail), **more}


def make_clip(source: Source, options: Options) -> Record:
    """Writes the clip of one video and returns its line of the report. Never raises for a bad video."""
    try:
        return {"name": source.name, "status": "cached", **_make_clip(source, options)}
    except _Unusable as error:
        detail = error.record["detail"].replace(str(source.path), source.path.name)  # equal wherever the folder is
        return {"name": source.name, **error.record, "detail": detail}
    except OSError as error:
        reason = "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "system error"
        return {"name": source.name, "status": "failed", "reason": reason, "detail": str(error)}
    except Exception as error:  # whatever a strange file brings about: the run goes on
        place = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return {"name": source.name, "status": "failed", "reason": "unexpected error", "detail": detail}


def record_of(cache: Path, name: str) -> Record:
    """The report's line of a clip that is in the cache, as `make_clip` returned it."""
    clip = open_clip(cache, name)
    of_clip = {key: clip.metadata[key] for key in ("measures", "notes")}
    return {"name": name, "status": "cached", "frames": clip.num_frames, **of_clip}


def _make_clip(source: Source, options: Options) -> Record:
    video, sound = _open(source)
    wav = shift_sound(_read_sound(sound), source.sound_shift)
    mel, silent, limit = log_mel(wav), silent_frames(wav), frames_for_samples(len(wav))
    scorer = sync_scorer(options.filters, wav)
    del wav  # of an hour, 230 MB that nothing else needs
    width, height, estimate = video.info.width, video.info.height, video.info.num_frames
    measures, tracker, seen, kept = Measures(), Tracker(), 0, []
    try:
        for frame in islice(video, limit):
            tracker.add(frame)
            measures.see_frame(frame)
            seen += 1
            if seen * frame.nbytes <= KEPT_BYTES:
                kept.append(frame)
            else:
                kept.clear()
    except UserError as error:
        raise _Unusable("no picture", error) from error
    track = tracker.finish()
    if video.damage:
        raise _Unusable("damaged", f"after {seen} frames: {video.damage}")
    if not track.found.any():
        raise _Unusable("no face", f"{seen} frames of {width} x {height}")

    with ClipWriter(options.cache, source.name) as writer:
        for frame, box, found in zip(kept or video, track.boxes, track.found, strict=False):
            face = crop_face(frame, box, options.size) if found else None
            writer.add(face)
            if face is not None:
                measures.see_face(face)
            if scorer:
                scorer.add(fit_mouth(frame, box, found))
        figures = measures.figures(track, silent)
        if scorer:
            result = scorer.finish()
            figures |= {"offset": result.offset, "confidence": round(result.confidence, 3)}
        if reason := rejected_by(figures, options.filters):
            raise _Unusable(reason, status="rejected", frames=seen, measures=figures)
        notes = _notes(source, seen, int(track.found.sum()), limit, estimate)
        metadata = {
            "settings": settings.current(options.size),
            "source": source.path.name,
            "frame_size": track.frame_size,
            "sound_shift": source.sound_shift,
            "measures": figures,
            "notes": notes,
        }
        writer.finish(track.landmarks_in_frame, track.boxes, track.found, mel, metadata)
    return {"frames": seen, "measures": figures, "notes": notes}


def _open(source: Source) -> tuple[Video, Path]:
    """The video, and the file that its sound is in: its own, else a .wav beside it."""
    if source.path.exists() and not os.access(source.path, os.R_OK):
        raise _Unusable("no permission", source.path)
    try:
        video = Video(source.path)
    except UserError as error:
        raise _Unusable("not a video", error) from error
    if video.info.has_audio:
        return video, source.path
    beside = source.path.with_suffix(SOUND_SUFFIX)
    if beside.exists() and has_audio(beside):
        return video, beside
    raise _Unusable("no sound", f"none inside, and no {beside.name} beside it")


def _read_sound(path: Path) -> np.ndarray:
    try:
        return read_audio(path)
    except UserError as error:
        raise _Unusable("no sound", error) from error


def shift_sound(wav: np.ndarray, frames: int) -> np.ndarray:
    """Moves sound (S,) by video frames: to later with silence in front, or (negative) to earlier."""
    samples = frames * SAMPLE_RATE // FPS
    return np.pad(wav, (samples, 0)) if samples > 0 else wav[-samples:]


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
