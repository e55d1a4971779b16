"""Reading and writing video and sound files of any kind; the only file that knows PyAV (FFmpeg).

Everything outside sees upright RGB pictures at a constant frame rate and mono float sound, both counted from one zero, so
that sample s and frame f of a file belong together when s / sample rate = f / frame rate.
"""

import contextlib
import itertools
import math
import os
import secrets
import stat
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from command_line import UserError
from media.audio import FPS, SAMPLE_RATE

_BUFFER_BYTES = 256 << 20  # decoded pictures kept by `Video.frames`, so that playing backward decodes a group few times
_WORTH_SEEKING = 25  # frames: fewer than this are decoded and passed over rather than jumped over
_STRAY = 0.05  # seconds by which sound may drift from its timestamps before it is put back in its place
_PACKING = 0.1  # seconds: the codec's last packet of sound may be longer, by less than this, than the sound it holds
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_KNOWN_MATRICES = {0, 1, 4, 5, 6, 7, 8, 9, 10}  # colour matrices (H.273) that the conversion understands
_HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_AAC_RATES = {16000, 22050, 24000, 32000, 44100, 48000}  # sample rates that every player takes


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as `Video` shows it."""

    width: int  # pixels, upright
    height: int
    fps: float  # frames a second that `Video` yields
    duration: float  # seconds: num_frames / fps
    has_audio: bool
    num_frames: int  # at `fps`; estimated from the header until the video has been read to its end once
    rotation: int  # degrees counterclockwise by which the stored pictures were turned


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be opened ({_reason(error)})") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder; give a file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is a pipe or a device; give a file")
    if status.st_size == 0:
        raise UserError(f"{path} is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")


def _open(path: Path) -> InputContainer:
    _check_file(path)
    try:  # "file:" and the whitelist keep names with colons, playlists and the like from being taken for addresses
        return av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: not a video or sound file, or damaged ({_reason(error)})") from error


def _picture_stream(container: InputContainer) -> av.VideoStream | None:
    """The largest moving picture; a cover picture attached to a sound file is none."""
    moving = (s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic)
    return max(moving, key=lambda s: s.width * s.height, default=None)


def _sound_stream(container: InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate), None)


def _zero(container: InputContainer) -> Fraction:
    """The time in the container, in seconds, that counts as zero for both its pictures and its sound.

    The earlier of their starts, moved by less than a frame so that the first picture falls on the grid of output frames:
    otherwise the few milliseconds of lead-in that sound codecs have would make every picture late.
    """
    picture, sound = (
        None if s is None or s.start_time is None or s.time_base is None else Fraction(s.start_time * s.time_base)
        for s in (_picture_stream(container), _sound_stream(container))
    )
    if picture is None or sound is None:
        return picture or sound or Fraction(0)
    return picture - Fraction(math.floor(max(Fraction(0), picture - sound) * FPS), FPS)


def _latest(container: InputContainer) -> float:
    """Seconds beyond which no timestamp is believed, so that a damaged one can't ask for hours of repeated frames."""
    return 2 * container.duration / av.time_base + 10 if container.duration else math.inf


def _decode(container: InputContainer, stream: av.VideoStream | av.AudioStream, errors: list[str]) -> Iterator:
    """The frames of a stream. What cannot be decoded is left out and noted in `errors`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.is_corrupt:
                errors.append("cut off")
                continue
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.FFmpegError as error:
            errors.append(_reason(error))
            continue
        yield from frames


def _source_rate(stream: av.VideoStream) -> Fraction:
    """Frames a second: the nominal rate where the average is close to it, else (variable rate) the average."""
    average, nominal = stream.average_rate, stream.guessed_rate
    rate = nominal if average and nominal and abs(nominal / average - 1) < 0.01 else average or nominal
    return Fraction(rate) if rate and rate < 1000 else Fraction(FPS)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How a stored picture becomes upright: transpose it, then flip it vertically, then horizontally."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]  # x' = a x + c y, y' = b x + d y
    return (True, bool(b < 0), bool(c < 0)) if abs(b) > abs(a) else (False, bool(d < 0), bool(a < 0))


class Video:
    """A video file as upright RGB pictures at a constant frame rate.

    Frame k is the source frame nearest in time to k / fps (the later of two as near), held through gaps; a video that has
    the asked rate comes out frame by frame. Only a bounded number of decoded pictures is in memory at a time.

    Args:
        path: any file FFmpeg reads. Rotation flags are applied; 10-bit and HDR pictures are brought to 8 bits, BT.709.
        fps: frames a second to yield; None keeps the source's own (average) rate.

    Raises:
        UserError: no such file, a folder, no permission, not a video, or no frame that can be decoded.
    """

    def __init__(self, path: str | Path, fps: float | None = FPS):
        self.path = Path(path)
        self.damage: str | None = None  # once it has been read to its end: what could not be decoded, in one line
        with _open(self.path) as container:
            stream = _picture_stream(container)
            if stream is None:
                raise UserError(f"{path} has no video that can be decoded")
            first = next(_decode(container, stream, []), None)
            if first is None or first.width * first.height == 0:
                raise UserError(f"{path}: no frame of its video can be decoded; the file is damaged")
            self._time_base = stream.time_base or Fraction(1, 90000)
            self._interval = 1 / _source_rate(stream)  # seconds
            self._rate = Fraction(fps).limit_denominator(1001) if fps else 1 / self._interval
            # A source frame at t ticks is shown from output frame ceil(t * scale - shift) on.
            self._scale = self._time_base * self._rate
            self._shift = (_zero(container) + min(self._interval, 1 / self._rate) / 2) * self._rate
            self._latest = (_latest(container) + float(_zero(container))) / float(self._time_base)  # ticks
            self._stated = (stream.duration or 0) * self._time_base  # seconds, 0 if the file doesn't say
            has_sound = _sound_stream(container) is not None
            duration = self._stated or Fraction(container.duration or 0, av.time_base)
        self._stored_size = first.width, first.height
        self._orientation = _orientation(first)
        width, height = reversed(self._stored_size) if self._orientation[0] else self._stored_size
        self.info = VideoInfo(width, height, float(self._rate), 0.0, has_sound, 0, first.rotation % 360)
        self._set_length(max(1, round(duration * self._rate)))
        # The source frames met so far, in the order they are shown; all of them once `_complete`.
        self._ticks = array("q")  # time of each, in units of the time base
        self._shown_from = array("q")  # the first output frame that shows it
        self._keys = [0]  # positions of the key frames, where decoding can start
        self._complete = False

    @property
    def fps(self) -> float:
        return self.info.fps

    def __iter__(self) -> Iterator[np.ndarray]:
        """All frames in order, (H, W, 3) uint8 RGB each, which the caller may change."""
        reader = _Reader(self, keep=2)
        for index in itertools.count():
            picture = reader.picture(index)
            if picture is None:
                return
            yield picture

    def frames(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of these numbers, in any order, (H, W, 3) uint8 RGB each; neighbours in turn are cheap both ways.

        Raises:
            IndexError: a number below 0 or past the end.
        """
        width, height = self._stored_size
        reader = _Reader(self, keep=max(8, _BUFFER_BYTES * 2 // (width * height * 3)))  # 12 bits a pixel, as is usual
        for index in indices:
            picture = reader.picture(index)
            if picture is None:
                raise IndexError(f"{self.path} has frames 0 to {self.info.num_frames - 1}, not {index}")
            yield picture

    def _set_length(self, frames: int) -> None:
        self.info = replace(self.info, num_frames=frames, duration=float(frames / self._rate))

    def _source_frames(self, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decoded frames from the key frame at position `key` on, with their positions; new ones join the index."""
        for earlier in (0, 1, 10, None) if key else (None,):  # seconds: some containers land behind the place asked for
            with _open(self.path) as container:
                stream = _picture_stream(container)
                assert stream is not None, f"{self.path} changed while it was read"
                stream.thread_type = "AUTO"
                seeking = earlier is not None
                if seeking:
                    with contextlib.suppress(av.FFmpegError):
                        container.seek(self._ticks[key] - int(earlier / self._time_base), stream=stream)
                errors: list[str] = []
                position = -1
                for frame in _decode(container, stream, errors):
                    match = None if frame.pts is None else bisect_left(self._ticks, frame.pts)
                    if match == len(self._ticks) or match is not None and self._ticks[match] != frame.pts:
                        match = None
                    if seeking and (match is None or match > key):
                        break
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

    def _enter(self, frame: av.VideoFrame) -> None:
        """Adds a source frame to the index; where its time is missing, goes backward or is absurd, a regular one."""
        ticks = frame.pts
        if self._ticks:
            if ticks is None or not self._ticks[-1] < ticks <= self._latest:
                ticks = self._ticks[-1] + max(1, round(self._interval / self._time_base))
            if frame.key_frame:
                self._keys.append(len(self._ticks))
        ticks = ticks or 0
        self._ticks.append(ticks)
        self._shown_from.append(math.ceil(ticks * self._scale - self._shift))
        self._last_duration = frame.duration

    def _finish(self, errors: list[str]) -> None:
        """Sets what is known only at the end: the number of frames, and what was damaged."""
        self._complete = True
        regular = round(self._interval / self._time_base)
        end = self._ticks[-1] + max(1, self._last_duration or regular)
        frames = math.ceil(min(end, self._latest) * self._scale - self._shift)
        self._set_length(max(1, frames, self._shown_from[-1] + 1))
        seconds = float((end - self._ticks[0]) * self._time_base)
        if errors:
            self.damage = f"{len(errors)} of its packets cannot be decoded ({errors[0]})"
        elif float(self._stated) - seconds > 0.5:
            self.damage = f"it ends after {seconds:.1f} of {float(self._stated):.1f} s"


class _Reader:
    """Walks through a video's source frames, keeping the last `keep` of them as they were decoded."""

    def __init__(self, video: Video, keep: int):
        self._video, self._keep = video, keep
        self._kept: dict[int, av.VideoFrame] = {}  # by position, in the order of decoding
        self._cursor: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._next = 0  # the position that the cursor is about to decode
        self._converter = VideoReformatter()  # one a reader: preparing a conversion can be slow

    def picture(self, index: int) -> np.ndarray | None:
        """Output frame `index`, or None where there is none."""
        video = self._video
        while not video._complete and (not video._shown_from or video._shown_from[-1] <= index):
            self._source(len(video._ticks))
        if not 0 <= index < video.info.num_frames:
            return None
        return self._convert(self._source(max(0, bisect_right(video._shown_from, index) - 1)))

    def _source(self, position: int) -> av.VideoFrame:
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

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._video._stored_size  # a stream may change its size on the way; its pictures here don't
        matrix = None  # the frame's own
        if frame.colorspace not in _KNOWN_MATRICES:  # untagged: as players do, by size
            matrix = Colorspace.ITU709 if width >= 1280 or height > 576 else Colorspace.ITU601
        hdr = frame.color_trc in _HDR
        rgb = self._converter.reformat(
            frame,
            width,
            height,
            "rgb24",
            src_colorspace=matrix,
            interpolation=_SCALING,
            dst_color_trc=ColorTrc.BT709 if hdr else None,
            dst_color_primaries=ColorPrimaries.BT709 if hdr else None,
        ).to_ndarray()
        transpose, vertical, horizontal = self._video._orientation
        rgb = rgb.transpose(1, 0, 2) if transpose else rgb
        return np.ascontiguousarray(rgb[:: -1 if vertical else 1, :: -1 if horizontal else 1])  # (H, W, 3)


def is_picture(path: str | Path) -> bool:
    """Whether a file is a still picture (and not a video; an animated GIF is a video).

    Raises:
        UserError: no such file, a folder, no permission, or an empty file.
    """
    _check_file(Path(path))
    with open(path, "rb") as file:
        return not file.read(6).startswith(b"GIF8") and cv2.haveImageReader(str(path))


def read_picture(path: str | Path) -> np.ndarray:
    """A still picture as (H, W, 3) uint8 RGB, upright.

    Raises:
        UserError: no such file, a folder, no permission, or not a picture.
    """
    _check_file(Path(path))
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # for instance an absurd size
        picture = None
    if picture is None:
        raise UserError(f"{path}: not a picture, or damaged; give a JPEG, PNG or WebP file")
    return picture


def has_audio(path: str | Path) -> bool:
    """Whether a file has sound that can be decoded. Raises UserError where `Video` or `read_audio` can't open it."""
    with _open(Path(path)) as container:
        return _sound_stream(container) is not None


def read_audio(path: str | Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """The sound of a sound or video file, all channels mixed: (S,) float32 in [-1, 1], with the same zero as `Video`.

    Raises:
        UserError: no such file, a folder, no permission, no sound, or none that can be decoded.
    """
    pieces = list(_sound(Path(path), sample_rate, "mono"))
    if not pieces:
        raise UserError(f"{path}: its sound is empty or cannot be decoded")
    return np.concatenate(pieces, axis=1)[0]


def _sound(path: Path, rate: int, layout: str) -> Iterator[np.ndarray]:
    """The sound of a file from its zero on, as pieces (channels, n) float32 without gaps between them."""
    with _open(path) as container:
        stream = _sound_stream(container)
        if stream is None:
            raise UserError(f"{path} has no sound")
        end = math.inf  # the stated end, in samples; what a codec adds to it to fill its last packet is no sound
        if stream.duration and stream.time_base and stream.start_time is not None:
            end = round(float((stream.start_time + stream.duration) * stream.time_base - _zero(container)) * rate)
        done = 0  # samples yielded
        beyond: list[np.ndarray] = []
        for start, placed in _placed_sound(container, stream, rate, layout):
            piece = placed[:, max(0, done - start) :]
            if piece.shape[1] == 0:
                continue
            if start > done:
                piece = np.pad(piece, ((0, 0), (start - done, 0)))
            inside = int(max(0, min(end - done, piece.shape[1])))
            done += piece.shape[1]
            if inside:
                yield piece[:, :inside]
            beyond.append(piece[:, inside:])
            if done > end + _PACKING * rate:  # so much that the stated end is wrong
                yield from beyond
                beyond, end = [], math.inf


def _placed_sound(
    container: InputContainer, stream: av.AudioStream, rate: int, layout: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces (channels, n) of resampled sound, each with the sample, counted from zero, where it belongs."""
    zero, latest = float(_zero(container)), _latest(container)
    resampler, source, expected, position = None, None, None, 0
    for frame in itertools.chain(_decode(container, stream, []), [None]):
        start, astray, form = expected, False, source
        if frame is not None:
            if expected is None or frame.pts is not None:
                start = float((frame.pts or 0) * frame.time_base) - zero
            astray = expected is None or (abs(start - expected) > _STRAY and start < latest)
            form = frame.format.name, frame.layout.name, frame.sample_rate
        if resampler and (frame is None or astray or form != source):
            for piece in resampler.resample(None):
                yield position, _samples(piece)
                position += piece.samples
            resampler = None
        if frame is None:
            return
        if resampler is None:  # 32-bit integers: FFmpeg mixes channels down to these without going over full scale
            resampler, source = av.AudioResampler("s32p", layout, rate), form
            expected = start if astray else expected
            position = round(expected * rate)
        for piece in resampler.resample(frame):
            yield position, _samples(piece)
            position += piece.samples
        expected += frame.samples / frame.sample_rate


def _samples(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray().astype(np.float32) / np.float32(2**31)  # (channels, n)


class VideoWriter:
    """Writes RGB frames and sound to an H.264/AAC file: `with VideoWriter(...) as writer: writer.write(frame)`.

    The file appears under its name only when the `with` block ends well; until then, and for good if it ends with an
    exception, there is none. Colours are tagged BT.709; odd sizes get their last row or column doubled, as H.264 needs.

    Args:
        path: .mp4, .mov or .mkv.
        fps: frames a second.
        size: width and height of the frames.
        audio: a file to take the sound from, at its own quality, or mono samples (S,) in [-1, 1]. It starts with the first
            frame, and is cut or padded with silence to the length of the video.
        audio_rate: samples a second where `audio` holds samples.
        crf: quality, 0 (best) to 51.
        lossless: store the pictures exactly (large files, not every player shows them).

    Raises:
        UserError: another name ending, a file without sound, or a place where the file can't be written (full disk).
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        audio: str | Path | np.ndarray | None = None,
        audio_rate: int = SAMPLE_RATE,
        crf: int = 17,
        lossless: bool = False,
    ):
        self._path = Path(path)
        if self._path.suffix.lower() not in {".mp4", ".mov", ".mkv"}:
            raise UserError(f"{path}: the name of a video to write must end in .mp4, .mov or .mkv")
        self._temporary = self._path.with_name(f".{secrets.token_hex(6)}.part{self._path.suffix.lower()}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._size = size
        self._codec = ("libx264rgb", "rgb24", "qp", 0) if lossless else ("libx264", "yuv420p", "crf", crf)
        self._sound: Iterator[np.ndarray] | None = None
        if isinstance(audio, np.ndarray):
            self._sound_rate, self._layout = audio_rate, "mono"
            self._sound = iter([audio[None].astype(np.float32)])
        elif audio is not None:
            self._sound_rate, self._layout = _sound_format(Path(audio))
            self._sound = _sound(Path(audio), self._sound_rate, self._layout)
        self._frames = self._samples = 0  # written so far
        self._pending: np.ndarray | None = None  # sound taken from the source, not yet written
        self._converter = VideoReformatter()

    def __enter__(self) -> Self:
        try:
            with self._explained():
                self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def _open(self) -> None:
        self._container = av.open(f"file:{self._temporary}", "w", options={"movflags": "+faststart"})
        encoder, pixels, quality, value = self._codec
        video = self._container.add_stream(encoder, self._rate, {quality: str(value), "preset": "veryfast"})
        video.width, video.height = (side + side % 2 for side in self._size)
        video.pix_fmt = pixels
        video.codec_context.time_base = 1 / self._rate
        if pixels != "rgb24":
            video.codec_context.colorspace = video.codec_context.color_primaries = ColorPrimaries.BT709
            video.codec_context.color_trc, video.codec_context.color_range = ColorTrc.BT709, ColorRange.MPEG
        self._video = video
        if self._sound is not None:
            self._audio = self._container.add_stream("aac", self._sound_rate)
            self._audio.layout = self._layout
            self._audio.bit_rate = 96000 * self._audio.layout.nb_channels

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame, (H, W, 3) uint8 RGB."""
        width, height = self._size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 of shape {(height, width, 3)}, not {frame.dtype} of {frame.shape}")
        if width % 2 or height % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        if self._video.pix_fmt != "rgb24":
            picture = self._converter.reformat(
                picture,
                format=self._video.pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_SCALING,
            )
        picture.pts, picture.time_base = self._frames, 1 / self._rate
        with self._explained():
            self._container.mux(self._video.encode(picture))
            self._frames += 1
            self._write_sound()

    def _write_sound(self) -> None:
        """Writes sound up to the end of the last frame."""
        if self._sound is None:
            return
        missing = round(self._frames / self._rate * self._sound_rate) - self._samples
        while missing > 0:
            if self._pending is None or self._pending.shape[1] == 0:
                silence = np.zeros((self._audio.layout.nb_channels, missing), np.float32)
                self._pending = next(self._sound, silence)
            piece, self._pending = self._pending[:, :missing], self._pending[:, missing:]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "fltp", self._layout)
            frame.sample_rate, frame.pts, frame.time_base = (
                self._sound_rate,
                self._samples,
                Fraction(1, self._sound_rate),
            )
            self._container.mux(self._audio.encode(frame))
            self._samples += piece.shape[1]
            missing -= piece.shape[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._frames == 0:
                    raise ValueError(f"{self._path}: no frame was written")
                with self._explained():
                    for stream in self._container.streams:
                        self._container.mux(stream.encode(None))
                    self._container.close()
                    os.replace(self._temporary, self._path)
        finally:
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(av.FFmpegError, OSError, AttributeError):
            self._container.close()
        self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{self._path}: cannot be written ({_reason(error)})") from error


def _sound_format(path: Path) -> tuple[int, str]:
    """The sample rate and layout to write a file's sound with."""
    with _open(path) as container:
        stream = _sound_stream(container)
        if stream is None:
            raise UserError(f"{path} has no sound")
        rate = stream.codec_context.sample_rate
        return (
            rate if rate in _AAC_RATES else 48000,
            "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo",
        )
