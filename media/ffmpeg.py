"""Everything that the project uses of FFmpeg, through PyAV. This is the only file that imports it."""

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
_TEXT_FORMATS = {"tty", "concat"}  # with these FFmpeg draws plain text or reads a list of other files
_PICTURE_FORMATS = {"image2", "gif", "apng"}
_PICTURE_BRANDS = {"avif", "avis", "heic", "heix", "heim", "heis", "mif1"}  # of pictures in an mp4-like container
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's native decoders ignore transparency
_KNOWN_MATRICES = {0, 1, 4, 5, 6, 7, 8, 9, 10}  # colour matrices (H.273) that the conversion understands
HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_MAX_DRIFT = 0.05  # seconds by which sound may drift from its timestamps before silence is inserted or samples are cut
_MAX_RATE = 1000  # frames a second; a higher value is the rate of a clock, not of frames
_RESTART = 1  # seconds; timestamps jump back by more where another file was appended

Stream = av.VideoStream | av.AudioStream
VideoFrame = av.VideoFrame


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def open_input(path: Path) -> Iterator["Source"]:
    """Opens a video or sound file; raises a UserError that says what is wrong with it."""
    check_input(path)
    try:  # "file:" and the whitelist prevent downloads, from a URL as the file's name or from one inside the file
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
    """An open file, and the streams of it that a player would choose.

    Attributes:
        is_picture: whether it is a picture (png, jpg, heic, ...), perhaps an animated one, rather than a video.
        picture: the video stream, or None. A default stream comes first, then the largest.
        sounds: all audio streams that can be decoded.
        sound: the default one of these, else the first, or None.
        zero: the container's time, in seconds, that counts as zero for both pictures and sound.
        errors: a reason for each packet that could not be decoded so far.
        part: index of the part that was read last, if the file consists of several files joined end to end.
    """

    def __init__(self, path: Path, container: InputContainer):
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
        """The video stream to show; neither the cover of a sound file nor the thumbnail of a tiled HEIC counts."""
        still = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [s for s in self.container.streams.video if s.codec_context and not s.disposition & still]
        whole = [s for s in streams if not s.disposition & Disposition.dependent]
        if self.is_picture and len(whole) < len(streams):
            return None
        return max(whole, key=lambda s: (_is_default(s), s.width * s.height), default=None)

    def _zero(self) -> Fraction:
        """The earlier of the two streams' starts, moved by less than a frame to put the first picture on the 25 fps
        grid. Otherwise the few milliseconds of lead-in of sound codecs would delay every picture.
        """
        picture = _start(self.picture, _start(self.sound, Fraction(0)))
        lead = max(Fraction(0), picture - _start(self.sound, picture))
        return picture - Fraction(math.floor(lead * FPS), FPS)

    def duration(self) -> float:
        """Duration in seconds, stated by the header or estimated from the file's size; 0 if unknown."""
        start = self.container.start_time or 0
        duration = self.container.duration or 0
        if self.container.format.name.startswith("matroska") and duration > start:
            duration -= start  # most programs store the time of the end as the duration
        return duration / av.time_base

    def latest(self) -> float:
        """The latest credible time in seconds; a later one is damage, and must not cause hours of frames or silence."""
        return self.zero + 2 * (self.duration() or math.inf) + 10

    def stated_end(self, stream: Any) -> float:
        """The end of a stream that the header states, in seconds from zero; infinite if it states none."""
        start = _start(stream, self.zero)
        end = start + (stream.duration or math.inf) * stream.time_base
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
        if tag:  # Matroska, WebM: most programs store the time of the end as the duration
            stated = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
            end = stated if stated > start else start + stated
        return float(end - self.zero)

    def sound_to_copy(self) -> Iterator[av.Packet] | None:
        """The packets of sound that can be copied into an mp4 (AAC from zero on, mono or stereo), else None."""
        sound = self.sound
        is_aac = "mp4" in self.container.format.name and sound.codec_context.name == "aac"
        if not is_aac or sound.channels > 2 or sound.start_time != 0 or self.zero != 0:
            return None
        return (packet for packet in self._packets(sound) if packet.size)

    def _packets(self, stream: Stream) -> Iterator[av.Packet]:
        """The packets of a stream, with continuous times if several files were joined end to end.

        A new part begins where the times restart. It starts at the end of the pictures or of the sound so far,
        whichever is later. Both are shifted by the same amount, so that they don't drift apart. Times that are not
        credible are removed.
        """
        latest = self.latest()
        shifts = [Fraction(0)]  # seconds added to the times of each part
        end = Fraction(0)  # seconds
        # The current part of each stream (its last packets may follow the first packets of another stream's next part)
        # and the decoding time of its last packet. Decoding times are in order even where frames refer to later ones.
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
        """Decodes the frames of a stream; skips damaged packets and records them in `errors`."""
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
        """Decodes the sound from zero on, resampled and mixed to `layout`, in pieces (channels, n) float32.

        Gaps at the start and in between are filled with silence. Sound before zero is cut off.
        """
        samples = 0
        # One resampler takes frames of the same sample rate, sample format, layout and part.
        kinds = itertools.groupby(
            self.decode(self.sound),
            lambda frame: (frame.sample_rate, frame.format.name, frame.layout.name, self.part),
        )
        for (source_rate, *_), group in kinds:
            # FFmpeg mixes channels down to 32-bit integers (s32p) without exceeding full scale. Without a frame size
            # PyAV would pass on sound that needs no conversion and ignore its times.
            start = str(samples * source_rate // rate)
            options = {"first_pts": start, "min_comp": "1e-6", "min_hard_comp": str(_MAX_DRIFT)}
            resampler = av.AudioResampler("s32p", layout, rate, frame_size=1024, options=options)
            for frame in itertools.chain(group, [None]):  # None flushes the resampler
                if frame and frame.pts is not None:
                    frame.pts -= round(self.zero / frame.time_base)
                try:
                    pieces = resampler.resample(frame)
                except ERRORS as error:  # more channels than FFmpeg has a layout for
                    problem = f"its sound cannot be mixed ({reason(error)}); give mono or stereo"
                    raise UserError(f"{self.path}: {problem}") from error
                for piece in pieces:
                    samples += piece.samples
                    yield piece.to_ndarray().astype(np.float32) / np.float32(2**31)


def _is_default(stream: Stream) -> bool:
    return Disposition.default in stream.disposition


def _start(stream: Any, default: Fraction) -> Fraction:
    """The start time of a stream in seconds; `default` if it is unknown or there is no stream."""
    if stream is None or stream.start_time is None:
        return default
    return stream.start_time * stream.time_base


def pixel_aspect(stream: av.VideoStream) -> float:
    """Width over height of a pixel; 1 if the stated value is close to 1 or absurd."""
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
    with suppress(ValueError):  # PyAV fails at side data of an unknown kind, such as EXIF
        matrix = frame.side_data.get("DISPLAYMATRIX", matrix)
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    return abs(b) > abs(a), b + d < 0, a + c < 0


class Converter:
    """Converts between FFmpeg's frames and RGB arrays. Reuse it: setting up a conversion can be slow.

    Attributes:
        has_blended: whether any frame had transparent parts, which became white.
    """

    def __init__(self, threads: int = 0):
        self.has_blended = False
        self._threads = threads
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: av.VideoFrame, width: int, height: int) -> ndarray:
        """Returns (height, width, 3) uint8. Untagged colours depend on the size, as in players; HDR becomes BT.709."""
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

    def from_rgb(self, picture: ndarray, pixel_format: str | None, matrix: int) -> av.VideoFrame:
        """Returns a frame of `pixel_format`: RGB, or limited range with this colour matrix (H.273)."""
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
    """Creates a file. The index of an mp4 comes first, so that browsers can play it while they load it."""
    return av.open(f"file:{path}", "w", options={} if path.suffix == ".mkv" else {"movflags": "+faststart"})


def sound_frame(samples: ndarray, stream: av.AudioStream, position: int) -> av.AudioFrame:
    """Makes a frame for `stream` from samples (channels, n) float32, `position` samples after the start."""
    frame = av.AudioFrame.from_ndarray(samples, "fltp", stream.layout.name)
    frame.sample_rate = stream.rate
    frame.pts = position
    frame.time_base = Fraction(1, stream.rate)
    return frame
