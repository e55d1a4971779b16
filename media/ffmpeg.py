"""Everything that the project needs of FFmpeg, through PyAV; the only file that imports it."""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy import ndarray

from media import pictures
from media.audio import FPS
from runtime.command_line import UserError, check_input

ERRORS = (FFmpegError, OSError)
_TEXT_FORMATS = {"tty", "concat"}  # by which FFmpeg draws plain text or reads a list of other files
_PICTURE_FORMATS = {"image2", "gif", "apng"}
_PICTURE_BRANDS = {"avif", "avis", "heic", "heix", "heim", "heis", "mif1"}  # of files built like an mp4
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave out transparency
_KNOWN_MATRICES = {0, 1, 4, 5, 6, 7, 8, 9, 10}  # colour matrices (H.273) that the conversion understands
HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_MAX_DRIFT = 0.05  # seconds by which sound may drift from its timestamps before silence is put in or samples are cut
_MAX_RATE = 1000  # frames a second: more is a clock, not a rate
_RESTART = 1  # seconds by which time goes back where another file was joined on

Stream = av.VideoStream | av.AudioStream
VideoFrame = av.VideoFrame


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def open_input(path: Path) -> Iterator["Source"]:
    """Opens a video or sound file; raises a UserError that says what is wrong with it."""
    check_input(path)
    try:  # "file:" and the whitelist keep a name with a colon, or an address in the file, from being fetched
        container = av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except ERRORS as error:
        raise UserError(f"{path} is not a video or sound file, or is damaged ({reason(error)})") from error
    with container:
        if container.format.name in _TEXT_FORMATS:
            raise UserError(f"{path} is a text file, not a video or sound file")
        source = Source(path, container)
        copy = pictures.as_png(path) if source.is_picture else None
        yield Source(path, av.open(copy, "r")) if copy else source


class Source:
    """An open file and those of its streams that players show and play.

    Attributes:
        is_picture: whether it is a picture (png, jpg, heic, ...), perhaps an animated one, rather than a video.
        picture: the stream of pictures, if there is one: the default one, of several the largest.
        sounds: all sound that can be decoded.
        sound: the default one of these, or the first, if there is one.
        zero: the time in the container, in seconds, that counts as zero for both its pictures and its sound.
        errors: what could not be decoded so far.
        part: number of the part that was read last, if the file is several joined end to end.
    """

    def __init__(self, path: Path, container: InputContainer) -> None:
        name = container.format.name
        brand = container.metadata.get("major_brand", "")
        self.path = path
        self.container = container
        self.is_picture = name in _PICTURE_FORMATS or name.endswith("_pipe") or brand in _PICTURE_BRANDS
        self.picture = self._picture()
        self.sounds = [s for s in container.streams.audio if s.codec_context and s.codec_context.sample_rate]
        self.sound: Any = max(self.sounds, key=_is_default, default=None)
        self.zero = self._zero()
        self.part = 0
        self.errors: list[str] = []

    def _picture(self) -> av.VideoStream | None:
        """A cover picture attached to a sound file is none, nor is the thumbnail of a phone's HEIC made of tiles."""
        still = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [s for s in self.container.streams.video if s.codec_context and not s.disposition & still]
        whole = [s for s in streams if not s.disposition & Disposition.dependent]
        if self.is_picture and len(whole) < len(streams):
            return None
        return max(whole, key=lambda s: (_is_default(s), s.width * s.height), default=None)

    def _zero(self) -> Fraction:
        """The earlier of the starts, moved by less than a frame so that the first picture falls on the grid of 25
        frames a second: otherwise the few milliseconds of lead-in of sound codecs would make every picture late.
        """
        picture = _start(self.picture, _start(self.sound, Fraction(0)))
        lead = max(Fraction(0), picture - _start(self.sound, picture))
        return picture - Fraction(math.floor(lead * FPS), FPS)

    def duration(self) -> float:
        """Seconds that the header states or the file's size suggests; 0 if unknown."""
        start = self.container.start_time or 0
        duration = self.container.duration or 0
        if self.container.format.name.startswith("matroska") and duration > start:
            duration -= start  # most programs state as duration the time at which it ends
        return duration / av.time_base

    def latest(self) -> float:
        """Seconds; a later time is damaged, and must not ask for hours of repeated frames or silence."""
        return self.zero + 2 * (self.duration() or math.inf) + 10

    def stated_end(self, stream: Any) -> float:
        """Seconds from zero to the end of a stream that the header states; infinite if it doesn't."""
        start = _start(stream, self.zero)
        end = start + (stream.duration or math.inf) * stream.time_base
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
        if tag:  # Matroska, WebM: most programs state as duration the time at which it ends
            stated = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
            end = stated if stated > start else start + stated
        return float(end - self.zero)

    def sound_to_copy(self) -> Iterator[av.Packet] | None:
        """The packets of sound that can go into an mp4 as it is: AAC from zero on, mono or stereo. Else None."""
        sound = self.sound
        is_aac = "mp4" in self.container.format.name and sound.codec_context.name == "aac"
        if not is_aac or sound.channels > 2 or sound.start_time != 0 or self.zero != 0:
            return None
        return (packet for packet in self._packets(sound) if packet.size)

    def _packets(self, stream: Stream) -> Iterator[av.Packet]:
        """The packets of a stream. A part of the file begins where time restarts (joined files).

        It goes on where pictures and sound have come to, whichever is later, by the same shift for both, which would
        drift apart if each went on by itself. A time that is not credible is left out.
        """
        latest = self.latest()
        shifts = [Fraction(0)]  # seconds by which the times of each part are moved
        end = Fraction(0)  # seconds
        # By stream, as the last packets of a part may come behind the first of the next: its part, and the decoding
        # time of its last packet, which is in order also where frames refer to later ones.
        parts = defaultdict[int, int](int)
        decoded = defaultdict[int, Any](lambda: -math.inf)
        for packet in self.container.demux([s for s in (self.picture, self.sound) if s]):
            index = packet.stream_index
            tick = packet.time_base
            if packet.pts is not None and packet.pts * tick > latest:
                packet.pts = None
                packet.dts = None
            if packet.dts is not None and not packet.is_corrupt:
                if packet.dts * tick < decoded[index] - _RESTART:
                    if parts[index] == len(shifts) - 1:
                        start = packet.dts if packet.pts is None else packet.pts
                        shifts.append(end - start * tick)
                    parts[index] = len(shifts) - 1
                decoded[index] = packet.dts * tick
            shift = round(shifts[parts[index]] / tick)
            if packet.dts is not None:
                packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
                end = max(end, (packet.pts + (packet.duration or 0)) * tick)
            if index == stream.index:
                self.part = parts[index]
                yield packet

    def decode(self, stream: Stream) -> Iterator[Any]:
        """The frames of a stream."""
        decoder: Any = stream.codec_context
        every_sample_counts = decoder.name.startswith("pcm_")
        if stream.metadata.get("alpha_mode") == "1" and decoder.name in _ALPHA_DECODERS:
            decoder = av.CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
        packets = self._packets(stream)
        while True:
            try:
                packet = next(packets)
                if packet.is_corrupt and not every_sample_counts:
                    self.errors.append("cut off")
                    continue
                frames = decoder.decode(packet)
            except (StopIteration, EOFError):
                return
            except FFmpegError as error:
                self.errors.append(reason(error))
                continue
            yield from frames

    def sound_pieces(self, rate: int, layout: str) -> Iterator[ndarray]:
        """The sound from zero on, as pieces (channels, n) float32 without gaps, resampled and mixed.

        Silence fills what is missing at the start and in between; what lies before zero is cut.
        """
        samples = 0
        # What one resampler can take: the same sample rate, sample format, layout and part.
        kinds = itertools.groupby(
            self.decode(self.sound),
            lambda frame: (frame.sample_rate, frame.format.name, frame.layout.name, self.part),
        )
        for (source_rate, *_), group in kinds:
            # 32-bit integers: FFmpeg mixes channels down to these without going over full scale. A frame size: without
            # one PyAV passes on sound that needs no conversion, whatever its time.
            start = str(samples * source_rate // rate)
            options = {"first_pts": start, "min_comp": "1e-6", "min_hard_comp": str(_MAX_DRIFT)}
            resampler = av.AudioResampler("s32p", layout, rate, frame_size=1024, options=options)
            for frame in itertools.chain(group, [None]):  # which asks for the rest
                if frame and frame.pts is not None:
                    frame.pts -= round(self.zero / frame.time_base)
                try:
                    pieces = resampler.resample(frame)
                except ERRORS as error:  # more channels than FFmpeg knows places for
                    problem = f"its sound cannot be mixed ({reason(error)}); give mono or stereo"
                    raise UserError(f"{self.path}: {problem}") from error
                for piece in pieces:
                    samples += piece.samples
                    yield piece.to_ndarray().astype(np.float32) / np.float32(2**31)


def _is_default(stream: Stream) -> bool:
    return Disposition.default in stream.disposition


def _start(stream: Any, default: Fraction) -> Fraction:
    """The time of a stream's beginning, in seconds; `default` if that is not known or there is no stream."""
    if stream is None or stream.start_time is None:
        return default
    return stream.start_time * stream.time_base


def pixel_aspect(stream: av.VideoStream) -> float:
    """Width over height of a pixel; 1 where it is close to that or absurd."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.01 < abs(math.log(aspect)) < 1 else 1.0


def frame_rates(stream: av.VideoStream) -> tuple[Fraction, Fraction]:
    """Frames a second: the usual rate and the highest.

    The usual rate is the nominal one if the average is close to it, otherwise (variable rate) the average.
    """
    average = Fraction(stream.average_rate or 0)
    nominal = Fraction(stream.guessed_rate or 0)
    usual = average or nominal
    if abs(nominal - usual) < usual / 100:
        usual = nominal
    if not 0 < usual < _MAX_RATE:
        usual = Fraction(FPS)
    highest = nominal if usual < nominal < _MAX_RATE else usual
    return usual, highest


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How a stored picture becomes upright: see `media.pictures.upright`."""
    matrix: Any = np.eye(3, dtype=np.int32)
    with suppress(ValueError):  # PyAV stops at kinds of data that are new to it, such as EXIF
        matrix = frame.side_data.get("DISPLAYMATRIX", matrix)
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    return abs(b) > abs(a), b + d < 0, a + c < 0


class Converter:
    """Between FFmpeg's pictures and RGB arrays. Keep one for many frames: preparing a conversion can be slow.

    Attributes:
        has_blended: whether a picture had transparent parts, which are white now.
    """

    def __init__(self, threads: int = 0) -> None:
        self.has_blended = False
        self._threads = threads
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: av.VideoFrame, width: int, height: int) -> ndarray:
        """(height, width, 3) uint8. Untagged colours are read as players read them, by size; HDR becomes BT.709."""
        matrix = frame.colorspace
        if matrix not in _KNOWN_MATRICES:
            matrix = Colorspace.ITU709 if pictures.is_hd(width, height) else Colorspace.ITU601
        is_hdr = frame.color_trc in HDR
        has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        picture = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgba" if has_alpha else "rgb24",
            src_colorspace=matrix,
            interpolation=_SCALING,
            dst_color_trc=ColorTrc.BT709 if is_hdr else None,
            dst_color_primaries=ColorPrimaries.BT709 if is_hdr else None,
            threads=self._threads,
        ).to_ndarray()
        if has_alpha:
            self.has_blended |= bool(picture[..., 3].min() < 255)
            picture = pictures.blend_over_white(picture)
        if frame.interlaced_frame and height > 2:
            return pictures.deinterlace(picture)
        return picture

    def from_rgb(self, picture: ndarray, pixel_format: str | None, matrix: int = 1) -> av.VideoFrame:
        """A frame of that pixel format, in limited range and with this colour matrix (BT.709) unless it is RGB."""
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        if pixel_format == "rgb24":
            return frame
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            dst_colorspace=matrix,  # 6 is FFmpeg's default
            interpolation=_SCALING,
            dst_color_range=ColorRange.MPEG,
            threads=self._threads,
        )


def open_output(path: Path) -> OutputContainer:
    """Creates a file. An mp4's index comes first, so that browsers can begin to play it."""
    return av.open(f"file:{path}", "w", options={} if path.suffix == ".mkv" else {"movflags": "+faststart"})


def sound_frame(samples: ndarray, stream: av.AudioStream, position: int) -> av.AudioFrame:
    """A frame for `stream` of samples (channels, n) float32, `position` samples after the start."""
    frame = av.AudioFrame.from_ndarray(samples, "fltp", stream.layout.name)
    frame.sample_rate = stream.rate
    frame.pts = position
    frame.time_base = Fraction(1, stream.rate)
    return frame
