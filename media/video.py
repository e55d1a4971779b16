"""Reading video and sound files of any kind.

Callers get upright RGB pictures at a constant frame rate, and mono float sound. Both count from the same zero: sample s
and frame f coincide where s / sample rate = f / frame rate.
"""

import contextlib
import functools
import itertools
import math
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from media import ffmpeg, pictures
from media.audio import FPS, SAMPLE_RATE
from media.planes import Picture, matrix_of
from media.timing import Timeline
from runtime.command_line import UserError

MAX_PICTURE = 1920 * 1080  # pixels; few machines play a video as large as a camera's picture
_BUFFER_BYTES = 128 << 20  # of decoded frames that `Video.frames` keeps, so that playing backward decodes few twice
_WORTH_SEEKING = 25  # frames; a shorter distance is decoded, not skipped by seeking
_SEEK_MARGINS = (0, 1, 10)  # seconds before a key frame, tried in turn
_KEPT_TAGS = {"title", "artist", "album", "date", "creation_time", "copyright", "description", "location"}
_SHORTER = 0.5  # seconds by which a stream may fall short of what the file states without being called damaged
_HEADERLESS = {"mp3", "aac", "ac3"}  # formats whose duration is guessed from the file's size
_PACKING = 0.1  # seconds; a codec may pad the last packet of sound by less than this
_SILENT = 1e-3  # of full scale; sound that never exceeds this is silent throughout
_CANCELLED = 0.1  # channels cancel out if their mix has less than this share of the louder one's energy
_BLENDED = "its transparent parts were filled with white"
_NO_VIDEO = "has no video that can be decoded; give a video or a picture"
_NO_PICTURE = "is a tiled picture (HEIC), which cannot be read; convert it to JPEG or PNG"
_UNREADABLE_VIDEO = "no frame of its video can be decoded; the file is damaged"
_UNREADABLE_PICTURE = "the picture cannot be decoded; it is damaged or of a rare kind: convert it to JPEG or PNG"


class _PastTheEnd(IndexError):
    """The video has no frame of this number."""


class Video:
    """A video file as upright RGB pictures of square pixels at a constant frame rate.

    Frame k is the source frame nearest in time to k / fps (the later one in a tie), held through gaps. A video that
    already has the requested rate keeps its frames one by one. Memory holds a bounded number of decoded frames.

    Args:
        path: any file that FFmpeg reads. Rotation flags are applied; 10-bit and HDR pictures become 8 bits, BT.709.
        fps: frames a second to yield; None keeps the source's own (average) rate.
        threads: number of threads that decode and convert, 0 for one per core. It does not change the pictures.

    Attributes:
        width, height: pixels of an upright frame; a larger picture (png, jpg, gif, ...) is shrunk to `MAX_PICTURE`.
        remarks: how the frames read so far were changed, such as shrunk, in one line each.
        fps: frames a second that it yields.
        matrix: colour matrix (H.273) if the frames can be used as decoded, else None: see `pictures`.
        num_frames: number of frames that it yields; an estimate until the video has been read to its end once.
        has_audio: whether there is sound that can be decoded.
        tags: metadata that a copy should keep, such as the title and the creation time.
        damage: what could not be decoded, in one line, once the video has been read to its end; else None.

    Raises:
        UserError: no such file, a folder, no permission, not a video, or no frame that can be decoded.
    """

    def __init__(self, path: str | Path, fps: float | None = FPS, threads: int = 0):
        self.path = Path(path)
        self.damage: str | None = None
        self.remarks: list[str] = []
        self._threads = threads
        self._lock = threading.Lock()  # several readers may decode
        self._complete = False  # whether the timeline holds all source frames
        self._joined = False  # whether the file is several joined end to end
        with ffmpeg.open_input(self.path) as source:
            stream: Any = source.picture
            self._is_picture = source.is_picture
            if stream is None:
                raise UserError(f"{path} {_NO_PICTURE if source.is_picture else _NO_VIDEO}")
            first = next(source.decode(stream), None)
            if first is None:
                raise UserError(f"{path}: {_UNREADABLE_PICTURE if source.is_picture else _UNREADABLE_VIDEO}")
            self._orientation = ffmpeg.orientation(first)
            frame_bytes = 1 + first.width * first.height * first.format.padded_bits_per_pixel // 8
            self._most_kept = max(8, _BUFFER_BYTES // frame_bytes)  # decoded frames
            self._set_size(first, ffmpeg.pixel_aspect(stream))

            source_rate, highest_rate = ffmpeg.frame_rates(stream)
            rate = Fraction(fps).limit_denominator(1001) if fps else source_rate
            self.fps = float(rate)
            self._time_base = stream.time_base
            self._zero = source.zero
            self._timeline = Timeline(self._time_base, source_rate, 1 / highest_rate, rate, self._zero)

            metadata = source.container.metadata
            self.tags = {name: value for name, value in metadata.items() if name.lower() in _KEPT_TAGS}
            self.has_audio = source.sound is not None
            stated_end = source.stated_end(stream)  # seconds from zero
            expected_end = stated_end if stated_end < math.inf else source.duration()  # of the longest stream
            self.num_frames = max(1, round(expected_end * rate))
            self._stated_end = stated_end if self.has_audio else expected_end
            latest_end = min(self._zero + stated_end, source.latest())
            self._latest_end = float(latest_end / self._time_base)  # ticks; no frame is shown after this

    def _set_size(self, first: ffmpeg.VideoFrame, aspect: float) -> None:
        """Sets the size in square pixels, and whether the first frame's samples can stay as they are."""
        width = first.width
        height = first.height
        pixels = width * height
        if not self._is_picture:
            width = round(width * aspect)
        elif pixels > MAX_PICTURE:
            scale = math.sqrt(MAX_PICTURE / pixels) / 2
            width = 2 * round(width * scale)  # even sides, so that a video made from it has exactly this size
            height = 2 * round(height * scale)
        self._stored_size = (width, height)
        is_transposed = self._orientation[0]
        self.width, self.height = self._stored_size[::-1] if is_transposed else self._stored_size
        if height < first.height:
            self.remarks.append(f"shrunk to {self.width} x {self.height} pixels")
        is_changed = any(self._orientation) or self._stored_size != (first.width, first.height)
        is_odd = width % 2 or height % 2
        self.matrix = None if is_changed or is_odd or self._is_picture else matrix_of(first)

    def __iter__(self) -> Iterator[ndarray]:
        """Yields all frames in order, each (H, W, 3) uint8 RGB and read-only: a held frame is the same array again."""
        with contextlib.suppress(_PastTheEnd):
            yield from map(self._converter(), self._walk(itertools.count(), 2))

    def frames(self, indices: Sequence[int] | ndarray) -> Iterator[ndarray]:
        """Yields the frames of these numbers, in any order, as above. Playing forward or backward is cheap.

        Raises:
            IndexError: a number below 0 or past the end.
        """
        return map(self._converter(), self._choose(indices))

    def pictures(self, indices: Sequence[int] | ndarray) -> Iterator[Picture]:
        """Like `frames`, but yields frames as decoded, without conversion, if the video has a `matrix`."""
        convert = self._converter()
        for frame in self._choose(indices):
            is_same_kind = matrix_of(frame) == self.matrix and (frame.width, frame.height) == self._stored_size
            yield frame if self.matrix and is_same_kind else convert(frame)  # a stream may change midway

    def _choose(self, indices: Sequence[int] | ndarray) -> Iterator[Any]:
        """Like `_walk`; keeps enough decoded frames for playing backward if the indices do so."""
        is_backward = (np.diff(indices) < 0).any()
        return self._walk(indices, self._most_kept if is_backward else 2)

    def _converter(self) -> Callable[[Any], ndarray]:
        """Returns a function that turns frames into upright pictures (H, W, 3) uint8, and a held frame only once."""
        converter = ffmpeg.Converter(self._threads)

        @functools.lru_cache(maxsize=1)
        def convert(frame: Any) -> ndarray:
            rgb = converter.to_rgb(frame, *self._stored_size)  # a stream may change its size midway
            picture = pictures.upright(rgb, self._orientation)
            picture.flags.writeable = False
            if converter.has_blended and _BLENDED not in self.remarks:
                self.remarks.append(_BLENDED)
            return picture

        return convert

    def _walk(self, indices: Iterable[int], keep: int) -> Iterator[Any]:
        """Yields the decoded frame that each output frame shows; keeps the `keep` frames that were decoded last."""
        timeline = self._timeline
        kept = deque[tuple[int, Any]](maxlen=keep)  # positions and frames
        cursor: Iterator[tuple[int, Any]] = iter(())
        decoded = math.inf  # position of the cursor's last frame
        for index in indices:
            while True:
                is_known = self._complete or timeline.reaches(index)  # which source frame is shown
                if index < 0 or (self._complete and index >= self.num_frames):
                    raise _PastTheEnd(f"{self.path} has frames 0 to {self.num_frames - 1}, not {index}")
                position = timeline.source(index) if is_known else len(timeline.ticks)
                if position not in dict(kept):
                    key = timeline.key_before(position)
                    if not key - _WORTH_SEEKING <= decoded + 1 <= position:
                        cursor = self._source_frames(key)
                    with self._lock:
                        for decoded, frame in cursor:
                            kept.append((decoded, frame))
                            if decoded >= position:
                                break
                if is_known:
                    break
            yield dict(kept).get(position, kept[-1][1])

    def _source_frames(self, key: int) -> Iterator[tuple[int, Any]]:
        """Decodes to the end from the key frame at position `key` or before it; yields positions and frames.

        New frames are appended to the timeline, which is complete at the end.
        """
        frames = self._seek(key) or self._decode(None)
        position = -1
        for frame in frames:
            match = self._timeline.find(frame.pts)
            position = position + 1 if match is None else max(match, position + 1)
            if position == len(self._timeline.ticks):
                # The durations in an mp4 are those from one decoding time to the next.
                duration = min(frame.duration or 0, self._latest_end - (frame.pts or 0))
                self._timeline.append(frame.pts, frame.key_frame, duration)
            yield position, frame
        if not self._complete:
            self._finish()

    def _seek(self, key: int) -> Iterator[Any] | None:
        """Decodes from a known key frame at position `key` or before it; None if seeking reaches no such frame.

        Some containers land after the requested time, some give other times than before (MPEG program streams), and
        a file of several parts may land in another part.
        """
        if key == 0 or self._joined:
            return None
        timeline = self._timeline
        for margin in _SEEK_MARGINS:
            frames = self._decode(timeline.ticks[key] - int(margin / self._time_base))
            first = next((frame for frame in frames if frame.key_frame), None)  # others lack their reference frames
            position = timeline.find(first.pts) if first else None
            if position in timeline.keys and position <= key:
                return itertools.chain([first], frames)
        return None

    def _decode(self, start: int | None) -> Iterator[Any]:
        """The frames from about `start` ticks on, or from the beginning."""
        with ffmpeg.open_input(self.path) as source:
            stream: Any = source.picture
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads
            if start is not None:
                with contextlib.suppress(*ffmpeg.ERRORS):
                    source.container.seek(start, stream=stream)
            for frame in source.decode(stream):
                self._joined |= source.part > 0
                yield frame
            self._errors = source.errors

    def _finish(self) -> None:
        """Sets what is known only at the end: the number of frames and the damage."""
        timeline = self._timeline
        if not timeline.ticks:
            raise UserError(f"{self.path}: {_UNREADABLE_VIDEO}")
        self._complete = True
        is_still = self._is_picture and len(timeline.ticks) == 1
        self.num_frames = 1 if is_still else timeline.num_output_frames
        end = float(timeline.end * self._time_base - self._zero)  # seconds
        damages = []
        if self._errors:
            damages.append(f"{len(self._errors)} of its packets cannot be decoded ({self._errors[0]})")
        if _SHORTER < self._stated_end - end < math.inf:
            damages.append(f"its pictures end after {end:.1f} of {self._stated_end:.1f} s")
        self.damage = "; ".join(damages) or None


def sound_file(video: Video) -> Path:
    """The file of a video's sound: the video or, if it has no sound, a .wav of the same name beside it, if any."""
    beside = video.path.with_suffix(".wav")
    return beside if not video.has_audio and beside.is_file() else video.path


def read_audio(path: str | Path, remarks: list[str] | None = None) -> ndarray:
    """Reads the sound of a sound or video file, mono at 16 kHz: (S,) float32 in [-1, 1], with the same zero as `Video`.

    Where channels of opposite phase cancel out in the mix, the louder one replaces it. `remarks` gets one line for
    each thing that a user may want to know: packets that cannot be decoded, an early end, which of several tracks was
    used, channels that cancel out, silence throughout.

    Raises:
        UserError: no such file, a folder, no permission, no sound, or none that can be decoded.
    """
    remarks = [] if remarks is None else remarks
    samples = array("f")  # grows in place: joining pieces at the end would hold a long sound twice
    has_cancelled = False
    with ffmpeg.open_input(Path(path)) as source:
        stream = source.sound
        if stream is None:
            raise UserError(f"{path} has no sound; give a sound file, or a video with sound")
        stated = source.stated_end(stream)  # seconds
        is_headerless = source.container.format.name in _HEADERLESS
        layout = "mono" if stream.channels == 1 else "stereo"
        for channels in source.sound_pieces(SAMPLE_RATE, layout):
            mono = channels.mean(axis=0)
            energies = np.square(channels).sum(axis=1)
            if np.square(mono).sum() < _CANCELLED * energies.max():
                has_cancelled = True
                mono = channels[energies.argmax()]
            samples.frombytes(mono.tobytes())
    wav = np.frombuffer(samples, np.float32)
    seconds = len(wav) / SAMPLE_RATE
    if stated < seconds < stated + _PACKING:
        wav = wav[: round(stated * SAMPLE_RATE)]
    if not len(wav):
        raise UserError(f"{path} has no sound that can be decoded")
    if source.errors:
        remarks.append(f"{len(source.errors)} packets of its sound cannot be decoded ({source.errors[0]})")
    if not is_headerless and _SHORTER < stated - seconds < math.inf:
        remarks.append(f"its sound ends after {seconds:.1f} of {stated:.1f} s")
    if has_cancelled:
        remarks.append("its channels have opposite phase and cancel out; where they do, the louder one was used")
    if len(source.sounds) > 1:
        remarks.append(f"sound track {source.sounds.index(stream) + 1} of {len(source.sounds)} was used")
    if max(wav.max(), -wav.min()) < _SILENT:
        remarks.append("its sound is silent throughout")
    return wav
