"""Dubs a video, or makes a picture speak: python inference.py --video V --audio A --output O.mp4

The video is read twice, so that its frames need not be kept in memory: once to detect the face in every frame, once to
draw it. Stage 1 predicts lips and jaws from the sound some seconds ahead of the drawing.
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, TypeVar

import numpy as np
from tqdm import tqdm

from drawing import Drawing, with_panel
from face.detector import FaceDetector
from face.track_cache import load_track, save_track, track_path
from face.tracking import FaceTrack, parse_pick, track_faces
from jobs import Job, Speaker, read_jobs, run_jobs
from media.audio import FPS, SAMPLE_RATE, log_mel
from media.planes import BT709
from media.timing import ping_pong
from media.video import Video, read_audio
from media.writer import WRITTEN, VideoWriter
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from runtime.command_line import UserError, check_output, naming, run
from runtime.device import out_of_memory, release_memory
from runtime.pipeline import prefetch
from runtime.stopwatch import Stopwatch

SHORTEST_SOUND = 0.2  # seconds: one mel window
SHORTEST_SHOT = 3  # frames with a face; shorter shots are not dubbed, unless there are no longer ones
MAX_LISTED_CUTS = 5  # in the summary
READ_AHEAD = 4  # frames
SYNTHETIC = "Synthetic: the mouth in this video was generated from other speech (IP-LAP)."  # comment of the file

Frame = TypeVar("Frame")
Progress = Callable[[str, int, int], None]  # stage, frames done, total frames (an estimate while tracking)


@dataclass(frozen=True)
class Summary:
    """What `Dubber.dub` did."""

    frames: int
    frames_without_face: int
    seconds: float  # wall time of the whole job
    stage_seconds: dict[str, float]  # wall time by stage
    remarks: list[str]  # damage, the sound that was used, changes to the pictures, and where the shot changes


class Dubber:
    """Dubs videos: `Dubber.from_weights(folder).dub(video, audio, output)`."""

    def __init__(self, networks: Networks):
        self.networks = networks
        self.config = networks.config

    @classmethod
    def from_weights(cls, folder: str | Path = SHIPPED_WEIGHTS, config: DubConfig | None = None) -> Self:
        """Loads both networks from a folder. Raises the UserErrors of `Networks.from_weights`."""
        return cls(Networks.from_weights(folder, config))

    def dub(
        self, video: str | Path, audio: str | Path, output: str | Path, progress: Progress | None = None
    ) -> Summary:
        """Writes to `output` the person in `video` saying `audio`. See `dub_speakers`."""
        return self.dub_speakers(video, [Speaker(Path(audio), start=self.config.start)], output, progress)

    def dub_speakers(
        self, video: str | Path, speakers: Sequence[Speaker], output: str | Path, progress: Progress | None = None
    ) -> Summary:
        """Writes to `output` the persons in `video` saying their `audio`. It lasts until the last sound ends.

        A shorter video runs forward and backward. Frames stay unchanged if they show no face or a hand in front of the
        mouth, if they lie in `keep_spans` of the config, or if their shot has only one or two frames, such as a flash,
        in which a new mouth would only flicker.

        Args:
            video: a video or a picture with a face in it.
            speakers: who says what, and when; a face is redrawn while its own sound lasts.
            output: the file to write (.mp4, .mov or .mkv).
            progress: called after each frame that was tracked ("track") or written ("write").

        Raises:
            UserError: the input is unusable, no frame shows a face, or the output cannot be written. No unfinished file
                is left behind.
        """
        video = Path(video)
        output = Path(output)
        config = self.config
        stopwatch = Stopwatch()
        began = time.perf_counter()
        check_output(output, suffixes=WRITTEN, inputs=[video, *(speaker.audio for speaker in speakers)])
        remarks = []
        source = Video(video, fps=None if config.keep_fps else FPS)
        with stopwatch.stage("audio"):
            speeches = [read_speech(speaker, source.fps, remarks) for speaker in speakers]
        sound_frames = max(frames.stop for _, frames in speeches)
        frames_to_track = None if config.keep_length else sound_frames
        track_of = cache(lambda face: self.track(source, face, frames_to_track, progress))
        drawings = []
        with stopwatch.stage("track"):
            for speaker, (mel, frames) in zip(speakers, speeches, strict=True):
                track = track_of(speaker.face or config.face)
                drawings.append(Drawing(self.networks, source, track, mel, frames, stopwatch))
        track = drawings[0].track
        num_frames = max(sound_frames, len(track.found))
        order = ping_pong(len(track.found), num_frames)  # (F,) source frame of each output frame
        width, height = track.frame_size
        if config.panel:
            width += height // 4
        with ExitStack() as stack:
            writer = VideoWriter(
                output,
                source.fps,
                (width, height),
                [(speaker.audio, speaker.start) for speaker in speakers],
                config.crf,
                config.lossless,
                source.matrix or BT709,
                source.tags | {"comment": SYNTHETIC},
                copy_sound=num_frames == sound_frames,
            )
            stack.enter_context(writer)
            pictures = source.pictures(order)
            if config.panel:
                pictures = map(with_panel, source.frames(order))
            elif config.lossless:
                pictures = source.frames(order)
            pictures = stack.enter_context(closing(prefetch(pictures, READ_AHEAD)))
            for drawing in drawings:
                pictures = stack.enter_context(closing(drawing.pictures(order, pictures)))
            for picture in report(pictures, "write", num_frames, progress):
                with stopwatch.stage("write"):
                    writer.write(picture)
        remarks += remarks_on(source, track)
        spoken = {number for drawing in drawings for number in drawing.part}
        redrawn = {number for drawing in drawings for number in drawing.part if drawing.track.found[order[number]]}
        seconds = time.perf_counter() - began
        return Summary(num_frames, len(spoken - redrawn), seconds, stopwatch.seconds, remarks)

    def track(self, source: Video, face: str, num_frames: int | None, progress: Progress | None) -> FaceTrack:
        """Tracks a face through the first `num_frames` of a video (None: all), or loads it from the track cache.

        Raises:
            UserError: no frame shows the face.
        """
        config = self.config
        track = None
        path = None
        if config.track_cache:
            settings = f"{face} {config.keep_hands}"
            path = track_path(config.track_cache, source.path, source.fps, settings)
            track = load_track(path, num_frames)
        if track is None:
            expected = min(num_frames or source.num_frames, source.num_frames)
            with ExitStack() as stack:
                detector = stack.enter_context(closing(FaceDetector(hands=config.keep_hands)))
                frames = stack.enter_context(closing(prefetch(islice(source, num_frames), READ_AHEAD)))
                track = track_faces(report(frames, "track", expected, progress), face, detector)
            if path:
                save_track(path, track, complete=num_frames is None or len(track.found) < num_frames)
        release_memory()
        if not track.found.any():
            searched = f"frames searched: {len(track.found)}"  # no more than the sound needs
            raise UserError(f"{source.path}: no face was found ({searched}); choose a video that shows the face")
        leave_out_short_shots(track)
        for start, end in config.keep_spans:
            track.found[round(start * source.fps) : round(end * source.fps)] = False
        return track


def read_speech(speaker: Speaker, fps: float, remarks: list[str]) -> tuple[np.ndarray, range]:
    """Returns a speaker's mel spectrogram (80, columns) and the output frames that it covers; adds to `remarks`.

    Raises:
        UserError: the sound cannot be read or is too short.
    """
    notes = []
    wav = read_audio(speaker.audio, notes)
    remarks += [f"{speaker.audio}: {line}" for line in notes]
    seconds = len(wav) / SAMPLE_RATE
    if seconds < SHORTEST_SOUND:
        raise UserError(f"{speaker.audio}: only {seconds:.3f} s of sound; give at least {SHORTEST_SOUND} s")
    first = round(speaker.start * fps)
    return log_mel(wav), range(first, first + math.ceil(round(seconds * fps, 6)))


def leave_out_short_shots(track: FaceTrack) -> None:
    """Marks the faces of shots with fewer than `SHORTEST_SHOT` of them as not found, unless no shot has more."""
    faces_of_shot = np.bincount(track.shots, track.found)
    enough = min(SHORTEST_SHOT, faces_of_shot.max())
    track.found &= faces_of_shot[track.shots] >= enough


def remarks_on(source: Video, track: FaceTrack) -> list[str]:
    """Returns one line each for damage, changes to the pictures, and cuts."""
    remarks = []
    if source.damage:
        remarks.append(f"{source.path}: damaged, only the readable parts were used: {source.damage}")
    remarks += [f"{source.path}: {line}" for line in source.remarks]
    times = [f"{second:.1f}" for second in np.flatnonzero(track.cuts) / source.fps]
    if len(times) > MAX_LISTED_CUTS:
        times[MAX_LISTED_CUTS:] = ["..."]
    if times:
        remarks.append(f"{source.path}: the shot changes at {', '.join(times)} s; the face in each shot was redrawn")
    return remarks


def report(frames: Iterable[Frame], stage: str, total: int, progress: Progress | None) -> Iterator[Frame]:
    """Yields the frames and reports each as done when the next one is requested."""
    for done, frame in enumerate(frames, start=1):
        yield frame
        if progress is not None:
            progress(stage, done, total)


@dataclass(frozen=True, kw_only=True)
class DubCommand(DubConfig):
    """Redraws the lower half of a face so that the mouth follows new speech."""

    video: Path | None = None
    """A video, or a picture (png, jpg, ...), with a face in it."""
    audio: Path | None = None
    """The new speech: a sound file, or a video with sound. The result is as long as this."""
    output: Path | None = None
    """The video to write (.mp4, .mov or .mkv)."""
    jobs: Path | None = None
    """Dub a list: a CSV file with the columns video, audio, output, face and start. Existing outputs are skipped."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""


def main(command: DubCommand) -> None:
    jobs = jobs_of(command)
    with naming("--face"):
        parse_pick(command.face)
    if command.jobs is None:
        print(dub_job(Dubber.from_weights(command.weights, command), jobs[0]))
        return
    with TemporaryDirectory() as folder:
        config = replace(command, track_cache=command.track_cache or Path(folder))  # jobs may share a video
        dubber = Dubber.from_weights(command.weights, config)
        failed = run_jobs(jobs, partial(dub_job, dubber))
    if failed:
        print(f"{failed} of {len(jobs)} jobs failed; the same command tries them again", file=sys.stderr)
        sys.exit(1)


def jobs_of(command: DubCommand) -> list[Job]:
    """Returns the jobs of the list, or the one job of the command line."""
    if command.jobs is not None:
        if command.video or command.audio or command.output or command.start:
            raise UserError("--jobs: leave out --video, --audio, --output and --start; the list has columns for them")
        with naming("--jobs"):
            return read_jobs(command.jobs)
    if command.video is None or command.audio is None or command.output is None:
        raise UserError("give --video, --audio and --output, or --jobs")
    check_output(command.output, "--output", WRITTEN, inputs=(command.video, command.audio))
    return [Job(command.video, command.output, [Speaker(command.audio, start=command.start)])]


def dub_job(dubber: Dubber, job: Job) -> str:
    """Makes one video and returns a report: one line, and one more for each remark."""
    device = dubber.networks.device
    bars = []
    with ExitStack() as open_bar:

        def show(stage: str, done: int, total: int) -> None:
            if done == 1:
                open_bar.close()
                bars.append(open_bar.enter_context(tqdm(total=total, desc=stage, unit="frame")))
            bars[-1].update()

        try:
            summary = dubber.dub_speakers(job.video, job.speakers, job.output, show)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            flags = f"--batch-size {dubber.config.batch_size}, --num-candidates {dubber.config.num_candidates}"
            raise UserError(f"{flags}: too little memory on {device}; try smaller numbers") from error
    line = (
        f"{job.output}: {summary.frames} frames, {summary.frames_without_face} left unchanged "
        "(no face, or something in front of the mouth), "
        f"{summary.seconds:.1f} s, {summary.frames / summary.seconds:.1f} frames a second on {device}"
    )
    return "\n".join([line, *summary.remarks])


if __name__ == "__main__":
    run(main, DubCommand)
