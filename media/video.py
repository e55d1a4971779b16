"""Reading video and sound files of any kind.

Everything outside sees upright RGB pictures at a constant frame rate and mono float sound, both counted from one zero:
sample s and frame f of a file belong together when s / sample rate = f / frame rate.
"""

import contextlib
import itertools
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from media import ffmpeg
from media.audio import FPS, SAMPLE_RATE
from runtime.command_line import UserError

SUFFIXES = (  # of videos, where a folder is searched for them
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"
)  # fmt: skip
MOST_OF_A_PICTURE = 1920 * 1080  # pixels: a video as large as a camera's picture would play on few machines
_BUFFER_BYTES = 256 << 20  # decoded pictures kept by `Video.frames`, so that playing backward decodes a group few times
_WORTH_SEEKING = 25  # frames: fewer than this are decoded and passed over rather than jumped over
_SHORTER = 0.5  # seconds by which a stream may fall short of what the file states without being called damaged
_BARE = {"mp3", "aac", "ac3"}  # formats without a header: how long they last is guessed by their size
_PACKING = 0.1  # seconds: the codec's last packet of sound may be longer, by less than this, than the sound it holds


class Video:
    """A video file as upright RGB pictures of square pixels at a constant frame rate.

    Frame k is the source frame nearest in time to k / fps (the later of two as near), held through gaps; a video that
    has the asked rate comes out frame by frame. Only a bounded number of decoded pictures is in memory at a time.

    Args:
        path: any file FFmpeg reads. Rotation flags are applied; 10-bit and HDR pictures are brought to 8 bits, BT.709.
        fps: frames a second to yield; None keeps the source's own (average) rate.
        threads: that decode and convert; 0: as many as there are cores. The pictures are the same.

    Attributes:
        width, height: pixels, upright; a still picture of more than `MOST_OF_A_PICTURE` is shrunk to as many.
        shrunk: whether it was.
        fps: frames a second that it yields.
        num_frames: how many; estimated from the header until it has been read to its end once.
        has_audio: whether there is sound that can be decoded.
        damage: once it has been read to its end, what could not be decoded, in one line.

    Raises:
        UserError: no such file, a folder, no permission, not a video, or no frame that can be decoded.
    """

    def __init__(self, path: str | Path, fps: float | None = FPS, threads: int = 0):
        self.path, self._threads = Path(path), threads
        self.damage: str | None = None
        with ffmpeg.open_input(self.path) as container:
            stream = ffmpeg.picture_stream(container)
            if stream is None:
                raise UserError(f"{path} has no video that can be decoded; give a video or a picture")
            stream.codec_context.thread_count = threads
            first = next((frame for _, frame in ffmpeg.decode(container, stream, [])), None)
            if first is None or first.width * first.height == 0:
                raise UserError(f"{path}: no frame of its video can be decoded; the file is damaged")
            self._time_base = stream.time_base or Fraction(1, 90000)
            interval = 1 / ffmpeg.frame_rate(stream)  # seconds
            self._regular = max(1, round(interval / self._time_base))  # ticks from one frame to the next
            self._rate = Fraction(fps).limit_denominator(1001) if fps else 1 / interval
            zero = ffmpeg.zero(container)
            # A source frame at t ticks is shown from output frame ceil((t * scale - shift) / parts) on: whole numbers,
            # as fractions would take as long for each frame as its decoding.
            scale = self._time_base * self._rate
            shift = (zero + min(interval, 1 / self._rate) / 2) * self._rate
            self._parts = math.lcm(scale.denominator, shift.denominator)
            self._scale, self._shift = int(scale * self._parts), int(shift * self._parts)
            self._longest = ffmpeg.last_credible_time(container) / float(self._time_base)  # ticks that a frame may last
            aspect = float(stream.sample_aspect_ratio or 1)  # of a pixel
            still = container.format.name == "image2" or container.format.name.endswith("_pipe")
            self.has_audio = ffmpeg.sound_stream(container) is not None
            # Seconds. Some headers have those of the longest stream only, which may be the sound's.
            stated, longest = ffmpeg.stated_duration(stream), ffmpeg.duration(container)
            self._least = stated if stated or self.has_audio else longest
        aspect = aspect if 0.01 < abs(math.log(aspect)) < 1 else 1  # 1 is meant where it is close to that, or absurd
        scale = min(1, math.sqrt(MOST_OF_A_PICTURE / (first.width * aspect * first.height))) if still else 1
        self.shrunk = scale < 1
        step = 2 if self.shrunk else 1  # even sides, so that a video made of it has just these
        square = first.width * aspect, first.height  # in square pixels
        self._stored_size = tuple(step * round(side * scale / step) for side in square)
        self._orientation = ffmpeg.orientation(first, self.path)
        self.width, self.height = self._stored_size[:: -1 if self._orientation[0] else 1]
        self.fps, self.num_frames = float(self._rate), max(1, round((stated or longest) * self._rate))
        # The source frames met so far, in the order they are shown; all of them once `_complete`.
        self._ticks = array("q")  # time of each, in units of the time base
        self._shown_from = array("q")  # the first output frame that shows it
        self._keys = [0]  # positions of the key frames, where decoding can start
        self._last_ticks = 0  # how long the last one lasts
        self._complete = self._joined = False

    def __iter__(self) -> Iterator[np.ndarray]:
        """All frames in order, (H, W, 3) uint8 RGB each, not to be written to: one that is held is the same array."""
        pictures = map(_Reader(self, keep=2).picture, itertools.count())
        return itertools.takewhile(lambda picture: picture is not None, pictures)  # pyright: ignore

    def frames(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of these numbers, in any order, as above; neighbours in turn are cheap both ways.

        Raises:
            IndexError: a number below 0 or past the end.
        """
        width, height = self._stored_size
        reader = _Reader(self, keep=max(8, _BUFFER_BYTES * 2 // (width * height * 3)))  # 12 bits a pixel, as is usual
        for index in indices:
            picture = reader.picture(index)
            if picture is None:
                raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, not {index}")
            yield picture

    def _source_frames(self, key: int) -> Iterator[tuple[int, Any]]:
        """Decoded frames from the key frame at position `key` on, with their positions; new ones join the index."""
        # Seconds: some containers land behind the place asked for, and in a file of several parts in another one.
        for earlier in (0, 1, 10, None) if key and not self._joined else (None,):
            with ffmpeg.open_input(self.path) as container:
                stream = ffmpeg.picture_stream(container)
                assert stream is not None, f"{self.path} changed while it was read"
                stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
                stream.codec_context.thread_count = self._threads
                if seeking := earlier is not None:
                    with contextlib.suppress(*ffmpeg.ERRORS):
                        container.seek(self._ticks[key] - int(earlier / self._time_base), stream=stream)
                errors: list[str] = []
                position = -1
                for part, frame in ffmpeg.decode(container, stream, errors):
                    self._joined |= part > 0
                    match = self._find(frame.pts)
                    if seeking and not frame.key_frame:
                        continue  # drawn without the pictures it refers to
                    if seeking and (match not in self._keys or match > key):
                        break  # too late, or with another time than before, which MPEG program streams do
                    position = match if match is not None and (seeking or match > position) else position + 1
                    seeking = False
                    if position == len(self._ticks):
                        self._enter(frame)
                    yield position, frame
                else:
                    if not seeking:
                        if not self._complete:
                            self._finish(errors)
                        return

    def _find(self, ticks: int | None) -> int | None:
        """The position of the known source frame with exactly this time."""
        position = len(self._ticks) if ticks is None else bisect_left(self._ticks, ticks)
        return position if position < len(self._ticks) and self._ticks[position] == ticks else None

    def _enter(self, frame: Any) -> None:
        """Adds a source frame to the index; where its time is missing or goes backward, a regular one."""
        ticks, regular = frame.pts, self._regular
        if self._ticks:
            if ticks is None or not self._ticks[-1] < ticks:
                ticks = self._ticks[-1] + regular
            if frame.key_frame:
                self._keys.append(len(self._ticks))
        self._ticks.append(ticks or 0)
        self._shown_from.append(self._output_frame(self._ticks[-1]))
        self._last_ticks = max(min(frame.duration or 0, self._longest), regular)

    def _output_frame(self, ticks: float) -> int:
        """The first output frame that shows a source frame of this time."""
        return -int((self._shift - ticks * self._scale) // self._parts)

    def _finish(self, errors: list[str]) -> None:
        """Sets what is known only at the end: the number of frames, and what was damaged."""
        if not self._ticks:
            raise UserError(f"{self.path}: no frame of its video can be decoded; the file is damaged")
        self._complete = True
        end = self._ticks[-1] + self._last_ticks
        self.num_frames = max(1, self._output_frame(end))
        seconds = float((end - self._ticks[0]) * self._time_base)
        damages = [f"{len(errors)} of its packets cannot be decoded ({errors[0]})"] if errors else []
        if self._least - seconds > _SHORTER:
            damages.append(f"its pictures end after {seconds:.1f} of {self._least:.1f} s")
        self.damage = "; ".join(damages) or None


class _Reader:
    """Walks through a video's source frames, keeping the last `keep` of them as they were decoded."""

    def __init__(self, video: Video, keep: int):
        self._video, self._keep = video, keep
        self._kept: dict[int, Any] = {}  # FFmpeg's frames by position, in the order of decoding
        self._cursor: Iterator[tuple[int, Any]] | None = None
        self._next = 0  # the position that the cursor is about to decode
        self._converter = ffmpeg.Converter(video._threads)
        self._converted, self._picture = None, np.empty(0)  # the last frame asked for

    def picture(self, index: int) -> np.ndarray | None:
        """Output frame `index`, (H, W, 3), or None where there is none."""
        video = self._video
        while not video._complete and (not video._shown_from or video._shown_from[-1] <= index):
            self._source(len(video._ticks))
        if index < 0 or (video._complete and index >= video.num_frames):
            return None
        frame = self._source(max(0, bisect_right(video._shown_from, index) - 1))
        if frame is not self._converted:
            rgb = self._converter.to_rgb(frame, *video._stored_size)  # a stream may change its size on the way
            self._converted, self._picture = frame, ffmpeg.upright(rgb, video._orientation)
            self._picture.flags.writeable = False
        return self._picture

    def _source(self, position: int) -> Any:
        """The source frame at a position; asked for the one after the last known, the last there is."""
        if position not in self._kept:
            key = self._video._keys[bisect_right(self._video._keys, position) - 1]
            if self._cursor is None or not key - _WORTH_SEEKING <= self._next <= position:
                self._cursor, self._next = self._video._source_frames(key), key
            for found, frame in self._cursor:
                self._next = found + 1
                self._kept.pop(found, None)
                self._kept[found] = frame
                if len(self._kept) > self._keep:
                    del self._kept[next(iter(self._kept))]
                if found >= position:
                    return frame
        return self._kept.get(position) or self._kept[max(self._kept)]


def sound_file(video: Video) -> Path:
    """Where a video's sound is: inside, or, if there is none, in a .wav of its name beside it, if that is there."""
    beside = video.path.with_suffix(".wav")
    return beside if not video.has_audio and beside.is_file() else video.path


def audio_pieces(path: str | Path, damage: list[str] | None = None) -> Iterator[np.ndarray]:
    """What `read_audio` gives, in pieces (n,), for sound that is too long to hold. It raises the same errors."""
    with ffmpeg.open_input(Path(path)) as container:
        stream = ffmpeg.sound_stream(container)
        if stream is None:
            raise UserError(f"{path} has no sound; give a sound file, or a video with sound")
        stated, errors = ffmpeg.stated_end(container, stream), list[str]()
        end, done, held = stated * SAMPLE_RATE, 0, np.zeros(0, np.float32)
        for piece in ffmpeg.sound_pieces(container, stream, SAMPLE_RATE, "mono", errors):
            held = np.concatenate([held, piece[0]])
            if done + len(held) - end >= _PACKING * SAMPLE_RATE:
                end = math.inf  # the sound goes on past it
            known = round(min(max(end - done, 0), len(held)))
            yield held[:known]
            held, done = held[known:], done + known
        seconds, told = done / SAMPLE_RATE, [] if damage is None else damage
        if errors:
            told.append(f"{len(errors)} packets of its sound cannot be decoded ({errors[0]})")
        if container.format.name not in _BARE and _SHORTER < stated - seconds < math.inf:
            told.append(f"its sound ends after {seconds:.1f} of {stated:.1f} s")
        if not done:
            raise UserError(f"{path} has no sound that can be decoded")


def read_audio(path: str | Path, damage: list[str] | None = None) -> np.ndarray:
    """The sound of a sound or video file, mono at 16 kHz: (S,) float32 in [-1, 1], with the same zero as `Video`.

    What could not be decoded is added to `damage`, in one line each.

    Raises:
        UserError: no such file, a folder, no permission, no sound, or none that can be decoded.
    """
    samples = array("f")  # grows in place: pieces joined at the end would hold a long sound twice
    for piece in audio_pieces(path, damage):
        samples.frombytes(piece.tobytes())
    return np.frombuffer(samples, np.float32)
