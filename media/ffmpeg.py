"""What the project needs of FFmpeg, through PyAV; the only file that imports it. `media.video` builds on it."""

import contextlib
import itertools
import math
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from PIL import ExifTags, Image

from media.audio import FPS
from runtime.command_line import UserError

ERRORS = (FFmpegError, OSError)
_TEXT = {"tty", "concat"}  # formats by which FFmpeg draws plain text or reads a list of other files
_KNOWN_MATRICES = {0, 1, 4, 5, 6, 7, 8, 9, 10}  # colour matrices (H.273) that the conversion understands
_HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_SDR: dict[str, Any] = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_STRAY = "0.05"  # seconds by which sound may drift from its timestamps before silence is put in or samples are left out
_COMB = 8  # grey levels by which a line of the other field sticks out
_AAC_RATES = {16000, 22050, 24000, 32000, 44100, 48000}  # sample rates that every player takes
_AAC_BIT_RATE = 96000  # bits a second and channel


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def check_file(path: Path) -> None:
    """Raises a UserError unless `path` is a file that can be opened and has something in it."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # also a loop of links, a name that is too long
        raise UserError(f"{path} cannot be opened: {reason(error)}") from error
    problems = {
        "is a folder; give a file": stat.S_ISDIR(status.st_mode),
        "is a pipe or a device; give a file": not stat.S_ISREG(status.st_mode),
        "is empty (0 bytes)": status.st_size == 0,
        "cannot be read: permission denied": not os.access(path, os.R_OK),
    }
    if problem := next((problem for problem, there in problems.items() if there), None):
        raise UserError(f"{path} {problem}")


def open_input(path: Path) -> InputContainer:
    """Opens a video or sound file; raises a UserError that says what is wrong with it."""
    check_file(path)
    try:  # "file:" and the whitelist keep a name with a colon, or an address in the file, from being fetched
        container = av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except ERRORS as error:
        raise UserError(f"{path} is not a video or sound file, or is damaged ({reason(error)})") from error
    if container.format.name in _TEXT:
        container.close()
        raise UserError(f"{path} is a text file, not a video or sound file")
    return container


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """The largest moving picture; a cover picture attached to a sound file, and a tile of a phone's HEIC, is none."""
    parts = Disposition.attached_pic | Disposition.dependent
    moving = (s for s in container.streams.video if s.codec_context and not s.disposition & parts)
    return max(moving, key=lambda s: s.width * s.height, default=None)


def sound_stream(container: InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate), None)


def zero(container: InputContainer) -> Fraction:
    """The time in the container, in seconds, that counts as zero for both its pictures and its sound.

    The earlier of their starts, moved by less than a frame so that the first picture falls on the grid of 25 frames a
    second: otherwise the few milliseconds of lead-in that sound codecs have would make every picture late.
    """
    picture, sound = (
        None if s is None or s.start_time is None or s.time_base is None else s.start_time * s.time_base
        for s in (picture_stream(container), sound_stream(container))
    )
    if picture is None or sound is None:
        return picture or sound or Fraction(0)
    return picture - Fraction(math.floor(max(Fraction(0), picture - sound) * FPS), FPS)


def duration(container: InputContainer) -> float:
    """Seconds that the header states or the file's size suggests; 0 if there is no telling."""
    return (container.duration or 0) / av.time_base


def stated_duration(stream: av.VideoStream) -> float:
    """Seconds of pictures as the header has them; 0 if it doesn't say."""
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # Matroska, WebM
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return float((stream.duration or 0) * (stream.time_base or 0))


def last_credible_time(container: InputContainer) -> float:
    """Seconds from zero; a timestamp beyond is damaged, and mustn't ask for hours of repeated frames or silence."""
    return 2 * duration(container) + 10 if container.duration else math.inf


def _packets(container: InputContainer, stream: av.VideoStream | av.AudioStream) -> Iterator[tuple[int, av.Packet]]:
    """The packets of a stream, each with the number of its part: one begins where time starts again (joined files).

    It goes on where pictures and sound have come to, whichever is later, by the same shift for both, which would drift
    apart if each went on by itself. A time that is not credible is left out.
    """
    latest, shifts = zero(container) + last_credible_time(container), [Fraction(0)]  # seconds; shifts: of every part
    # By stream, as the last packets of a part may come behind the first of the next: its part, and its end so far.
    parts, ends = defaultdict[int, int](int), defaultdict[int, Any](lambda: -math.inf)
    for packet in container.demux([s for s in (picture_stream(container), sound_stream(container)) if s]):
        index, tick = packet.stream_index, packet.time_base
        if packet.pts is not None and packet.pts * tick > latest:
            packet.pts = packet.dts = None
        if packet.pts is not None:
            if packet.pts * tick + shifts[parts[index]] < ends[index] - 1 and not packet.is_corrupt:
                if parts[index] == len(shifts) - 1:
                    shifts.append(max(ends.values()) - packet.pts * tick)
                parts[index] = len(shifts) - 1
            ticks = round(shifts[parts[index]] / tick)
            packet.pts, packet.dts = packet.pts + ticks, None if packet.dts is None else packet.dts + ticks
            ends[index] = max(ends[index], (packet.pts + (packet.duration or 0)) * tick)
        if index == stream.index:
            yield parts[index], packet


def decode(container: InputContainer, stream: av.VideoStream | av.AudioStream, errors: list[str]) -> Iterator:
    """The frames of a stream, each with the number of its part. What cannot be decoded is noted in `errors`."""
    packets = _packets(container, stream)
    while True:
        try:
            part, packet = next(packets)
            if packet.is_corrupt and not stream.codec_context.name.startswith("pcm_"):  # every sample of which counts
                errors.append("cut off")
                continue
            frames = packet.decode()
        except (StopIteration, EOFError):
            return
        except FFmpegError as error:
            errors.append(reason(error))
            continue
        for frame in frames:
            yield part, frame


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Frames a second: the nominal rate where the average is close to it, else (variable rate) the average."""
    average, nominal = stream.average_rate, stream.guessed_rate
    rate = nominal if average and nominal and abs(nominal / average - 1) < 0.01 else average or nominal
    return Fraction(rate) if rate and rate < 1000 else Fraction(FPS)


def orientation(frame: av.VideoFrame, path: Path) -> tuple[bool, bool, bool]:
    """How a stored picture of a file becomes upright: transpose it, then flip it vertically, then horizontally."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV stops at kinds of data that are new to it, such as EXIF
        with contextlib.suppress(OSError), Image.open(path) as picture:
            tag = picture.getexif().get(ExifTags.Base.Orientation, 1)
            return tag in (5, 6, 7, 8), tag in (3, 4, 7, 8), tag in (2, 3, 6, 7)
        matrix = None
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]  # x' = a x + c y, y' = b x + d y
    return (True, bool(b < 0), bool(c < 0)) if abs(b) > abs(a) else (False, bool(d < 0), bool(a < 0))


def upright(picture: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """A stored picture (H, W, 3) turned as `orientation` says; a copy that the caller may change."""
    transpose, vertical, horizontal = orientation
    picture = picture.transpose(1, 0, 2) if transpose else picture
    return np.ascontiguousarray(picture[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def without_combs(picture: np.ndarray) -> np.ndarray:
    """An interlaced picture (H, W, 3) at the moment of one of its fields; changed in place.

    Where a line of the other field is brighter or darker than both its neighbours something has moved, and their mean
    takes its place; what stands still keeps all its lines.
    """
    above, line, below = picture[:-2:2], picture[1:-1:2], picture[2::2]
    brighter, darker = cv2.subtract(line, cv2.max(above, below)), cv2.subtract(cv2.min(above, below), line)
    moved = (cv2.max(brighter, darker) > _COMB).any(axis=2)
    line[moved] = cv2.addWeighted(above, 0.5, below, 0.5, 0)[moved]
    return picture


class Converter:
    """Between FFmpeg's pictures and RGB arrays. Keep one for many frames: preparing a conversion can be slow."""

    def __init__(self, threads: int = 0) -> None:
        self._reformat = partial(VideoReformatter().reformat, interpolation=_SCALING, threads=threads)

    def to_rgb(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8. Untagged colours are read as players read them, by size; HDR becomes BT.709."""
        untagged = Colorspace.ITU709 if width >= 1280 or height > 576 else Colorspace.ITU601
        matrix = None if frame.colorspace in _KNOWN_MATRICES else untagged
        curve = _SDR if frame.color_trc in _HDR else {}
        picture = self._reformat(frame, width, height, "rgb24", src_colorspace=matrix, **curve).to_ndarray()
        return without_combs(picture) if frame.interlaced_frame and height > 2 else picture

    def from_rgb(self, picture: np.ndarray, pixels: str | None) -> av.VideoFrame:
        """A frame of the pixel format `pixels`, BT.709 in limited range unless that is RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        if pixels == "rgb24":
            return frame
        return self._reformat(frame, format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def sound_pieces(
    container: InputContainer, stream: av.AudioStream, rate: int, layout: str, errors: list[str]
) -> Iterator[np.ndarray]:
    """The sound from the container's zero on, as pieces (channels, n) float32 without gaps, resampled and mixed.

    Silence fills what is missing at the start and in between; what lies before zero is cut. What cannot be decoded is
    noted in `errors`.
    """
    begin, done, form = zero(container), 0, attrgetter("sample_rate", "format.name", "layout.name")
    sound = decode(container, stream, errors)
    for (_, (source_rate, *_)), frames in itertools.groupby(sound, lambda heard: (heard[0], form(heard[1]))):
        # 32-bit integers: FFmpeg mixes channels down to these without going over full scale. A frame size: without one
        # PyAV passes on sound that needs no conversion, whatever its time.
        options = {"first_pts": str(done * source_rate // rate), "min_comp": "1e-6", "min_hard_comp": _STRAY}
        resampler = av.AudioResampler("s32p", layout, rate, frame_size=1024, options=options)
        for _, frame in itertools.chain(frames, [(0, None)]):
            if frame and frame.pts is not None:
                frame.pts -= round(begin / frame.time_base)
            try:
                pieces = resampler.resample(frame)
            except ERRORS as error:  # more channels than FFmpeg knows places for
                what = f"{container.name.removeprefix('file:')}: its sound cannot be mixed ({reason(error)})"
                raise UserError(f"{what}; give mono or stereo") from error
            for piece in pieces:
                done += piece.samples
                yield piece.to_ndarray().astype(np.float32) / np.float32(2**31)


def stated_end(container: InputContainer, stream: av.AudioStream) -> float:
    """Seconds from zero to the end of the sound as the header has it, infinite if it doesn't say."""
    if stream.duration is None or stream.start_time is None or stream.time_base is None:
        return math.inf
    return float((stream.start_time + stream.duration) * stream.time_base - zero(container))


def open_output(
    path: Path, rate: Fraction, size: tuple[int, int], crf: int, lossless: bool
) -> tuple[OutputContainer, av.VideoStream]:
    """Creates an H.264 file with one stream of pictures: RGB if lossless, else 4:2:0 with its colours tagged BT.709."""
    container = av.open(f"file:{path}", "w", options={} if path.suffix == ".mkv" else {"movflags": "+faststart"})
    # "veryfast" takes half the default's time, for files of the same size and 1.7 dB less PSNR.
    codec, quality = ("libx264rgb", {"qp": "0"}) if lossless else ("libx264", {"crf": str(crf)})
    video = container.add_stream(codec, rate, {**quality, "preset": "veryfast"})
    assert isinstance(video, av.VideoStream)
    video.width, video.height = (side + side % 2 for side in size)  # H.264 takes even ones only
    video.pix_fmt = "rgb24" if lossless else "yuv420p"
    video.codec_context.time_base = 1 / rate
    if not lossless:
        video.codec_context.colorspace = video.codec_context.color_primaries = Colorspace.ITU709
        video.codec_context.color_trc, video.codec_context.color_range = ColorTrc.BT709, ColorRange.MPEG
    return container, video


def add_sound(container: OutputContainer, rate: int, channels: int) -> av.AudioStream:
    """Adds a stream of AAC sound, at `rate` if every player takes that, with one or two channels."""
    rate, layout = rate if rate in _AAC_RATES else 48000, "mono" if channels == 1 else "stereo"
    return container.add_stream("aac", rate, layout=layout, bit_rate=_AAC_BIT_RATE * min(channels, 2))


def sound_frame(samples: np.ndarray, stream: av.AudioStream, position: int) -> av.AudioFrame:
    """A frame for `stream` of samples (channels, n) float32, `position` samples after the start."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, position, Fraction(1, stream.rate)
    return frame
