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
_HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_SDR: dict[str, Any] = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_MAX_DRIFT = 0.05  # seconds by which sound may drift from its timestamps before silence is put in or samples are cut
_MAX_RATE = 1000  # frames a second: more is a clock, not a rate
_RESTART = 1  # seconds by which time goes back where another file was joined on
_AAC_RATES = {16000, 22050, 24000, 32000, 44100, 48000}  # sample rates that every player takes
_AAC_BIT_RATE = 96000  # bits a second and channel
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "lossless": "libx264rgb"}

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
        self.sound = max(self.sounds, key=_is_default, default=None)
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
        picture = _start(self.picture)
        sound = _start(self.sound)
        if picture is None or sound is None:
            return picture or sound or Fraction(0)
        lead = max(Fraction(0), picture - sound)
        return picture - Fraction(math.floor(lead * FPS), FPS)

    def duration(self) -> float:
        """Seconds that the header states or the file's size suggests; 0 if unknown."""
        container = self.container
        seconds = (container.duration or 0) / av.time_base
        if container.format.name.startswith("matroska"):
            return _length(seconds, (container.start_time or 0) / av.time_base)
        return seconds

    def latest(self) -> float:
        """Seconds; a later time is damaged, and must not ask for hours of repeated frames or silence."""
        return self.zero + 2 * self.duration() + 10 if self.container.duration else math.inf

    def pixel_aspect(self) -> float:
        """Width over height of a pixel; 1 where it is close to that or absurd, and for pictures."""
        if self.is_picture or self.picture is None:
            return 1.0
        aspect = float(self.picture.sample_aspect_ratio or 1)
        return aspect if 0.01 < abs(math.log(aspect)) < 1 else 1.0

    def stated_end(self) -> float:
        """Seconds from zero to the end of the sound that the header states; infinite if it doesn't."""
        start = _start(self.sound)
        stated: Any = self.sound
        if start is None or stated.duration is None:
            return math.inf
        return float(start + stated.duration * stated.time_base - self.zero)

    def sound_to_copy(self) -> Iterator[av.Packet] | None:
        """The packets of sound that can go into an mp4 as it is: AAC from zero on, mono or stereo. Else None."""
        sound: Any = self.sound
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

    def _sound_format(self, frame: av.AudioFrame) -> tuple[int, str, str, int]:
        """What one resampler can take: the same sample rate, sample format, layout and part."""
        return frame.sample_rate, frame.format.name, frame.layout.name, self.part

    def sound_pieces(self, rate: int, layout: str) -> Iterator[ndarray]:
        """The sound from zero on, as pieces (channels, n) float32 without gaps, resampled and mixed.

        Silence fills what is missing at the start and in between; what lies before zero is cut.
        """
        assert self.sound
        samples = 0
        for (source_rate, *_), group in itertools.groupby(self.decode(self.sound), self._sound_format):
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


def _start(stream: Stream | None) -> Fraction | None:
    """The time of a stream's beginning, in seconds, if it is known."""
    if stream is None or stream.start_time is None or stream.time_base is None:
        return None
    return stream.start_time * stream.time_base


def stated_duration(stream: av.VideoStream) -> float:
    """Seconds of pictures that the header states; 0 if it doesn't."""
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # Matroska, WebM
    if tag:
        end = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        return _length(end, float(_start(stream) or 0))
    return float((stream.duration or 0) * (stream.time_base or 0))


def _length(end: float, start: float) -> float:
    """Seconds of a Matroska file, in which most programs state as duration the time at which it ends."""
    return end - start if end > start > 0 else end


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
    matrix = None
    with suppress(ValueError):  # PyAV stops at kinds of data that are new to it, such as EXIF
        matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) > abs(a):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


class Converter:
    """Between FFmpeg's pictures and RGB arrays. Keep one for many frames: preparing a conversion can be slow.

    Attributes:
        has_blended: whether a picture had transparent parts, which are white now.
    """

    def __init__(self, threads: int = 0) -> None:
        self.has_blended = False
        self._reformatter = VideoReformatter()
        self._options: dict[str, Any] = {"interpolation": _SCALING, "threads": threads}

    def to_rgb(self, frame: av.VideoFrame, width: int, height: int) -> ndarray:
        """(height, width, 3) uint8. Untagged colours are read as players read them, by size; HDR becomes BT.709."""
        options = dict(self._options)
        if frame.colorspace not in _KNOWN_MATRICES:
            options["src_colorspace"] = Colorspace.ITU709 if pictures.is_hd(width, height) else Colorspace.ITU601
        if frame.color_trc in _HDR:
            options |= _SDR
        has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        pixel_format = "rgba" if has_alpha else "rgb24"
        picture = self._reformatter.reformat(frame, width, height, pixel_format, **options).to_ndarray()
        if has_alpha:
            self.has_blended |= bool(picture[..., 3].min() < 255)
            picture = pictures.blend_over_white(picture)
        if frame.interlaced_frame and height > 2:
            return pictures.deinterlace(picture)
        return picture

    def from_rgb(self, picture: ndarray, pixel_format: str | None, matrix: int = 1) -> av.VideoFrame:
        """A frame of that pixel format, in limited range and with this colour matrix (BT.709) unless it is RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        if pixel_format == "rgb24":
            return frame
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            dst_colorspace=Colorspace.ITU709 if matrix == 1 else Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            **self._options,
        )


def open_output(
    path: Path, rate: Fraction, size: tuple[int, int], codec: str, crf: int, matrix: int
) -> tuple[OutputContainer, av.VideoStream]:
    """Creates a file with one stream of pictures: lossless RGB, or h264 or hevc in 4:2:0 with these colours (H.273)."""
    options = {} if path.suffix == ".mkv" else {"movflags": "+faststart"}
    container = av.open(f"file:{path}", "w", options=options)
    is_lossless = codec == "lossless"
    # "veryfast" takes half the default's time, for files of the same size and 1.7 dB less PSNR.
    quality = str(0 if is_lossless else crf)
    settings = {"crf": quality, "preset": "veryfast", "x265-params": "log-level=error"}
    video: Any = container.add_stream(_ENCODERS[codec], rate, settings)
    width, height = size
    video.width = width + width % 2  # H.264 takes even sides only
    video.height = height + height % 2
    context = video.codec_context
    context.time_base = 1 / rate
    context.pix_fmt = "rgb24" if is_lossless else "yuv420p"
    if not is_lossless:
        context.colorspace = matrix
        context.color_primaries = matrix
        context.color_trc = 1 if matrix == 1 else 6
        context.color_range = ColorRange.MPEG
    if codec == "hevc":
        context.codec_tag = "hvc1"  # Apple's players know it by this name only
    return container, video


def add_sound(container: OutputContainer, rate: int, channels: int) -> av.AudioStream:
    """Adds a stream of AAC sound, at `rate` if every player takes that, with one or two channels."""
    if rate not in _AAC_RATES:
        rate = 48000
    channels = min(channels, 2)
    layout = "mono" if channels == 1 else "stereo"
    return container.add_stream("aac", rate, layout=layout, bit_rate=_AAC_BIT_RATE * channels)


def sound_frame(samples: ndarray, stream: av.AudioStream, position: int) -> av.AudioFrame:
    """A frame for `stream` of samples (channels, n) float32, `position` samples after the start."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", stream.layout.name)
    frame.sample_rate = stream.rate
    frame.pts = position
    frame.time_base = Fraction(1, stream.rate)
    return frame
