"""Dubs a video, or brings a picture to life: python inference.py --video V --audio A --output O.mp4

Paper section 3.4. The video is read twice, so that memory does not grow with its length: once to find the face in every
frame, once to draw it. In between, for each shot, stage 1 predicts lips and jaw of all its frames from the sound.
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from tqdm import tqdm

from face.compositing import add_panel, paste_face
from face.crop import box_around, crop_detail, crop_face, smooth_boxes, to_crop, to_frame
from face.landmarks import EDGES
from face.references import lip_openness, spread_over_openness
from face.track_cache import load_track, save_track, track_path
from face.tracking import FaceTrack, fill_gaps, parse_pick, track_faces
from media.audio import FPS, SAMPLE_RATE, log_mel, mel_windows
from media.timing import ping_pong, window_frames
from media.video import Video, read_audio
from media.writer import WRITTEN, VideoWriter
from networks import NUM_LANDMARK_REFERENCES, SHIPPED_WEIGHTS, DubConfig, Networks, References, batches
from runtime import command_line
from runtime.command_line import UserError
from runtime.device import out_of_memory, share_cores
from runtime.pipeline import parallel_map, prefetch
from runtime.stopwatch import Stopwatch
from runtime.threads import available_cores

SHORTEST_SOUND = 0.2  # seconds: one mel window
SHORTEST_SHOT = 3  # frames with a face that a shot needs, unless there are no others
MAX_LISTED_CUTS = 5  # in the summary
MAX_DETAIL = 4  # times the renderer's size, up to which references are kept for their detail
MAX_WORKERS = 4  # threads that draw
READ_AHEAD = 8  # frames
STAGES = ("audio", "track", "landmarks", "references", "draw", "write")

Progress = Callable[[str, int, int], None]  # stage, frames done, frames in all (when tracking, an estimate)


@dataclass(frozen=True)
class Summary:
    """What `Dubber.dub` did."""

    frames: int
    frames_without_face: int
    seconds: float  # wall time of the whole job
    stage_seconds: dict[str, float]  # wall time by stage
    remarks: list[str]  # damage, which sound was used, what was done to pictures, and where the shot changes


class Dubber:
    """Dubs videos: `Dubber.from_weights(folder).dub(video, audio, output)`."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.config = networks.config

    @classmethod
    def from_weights(cls, folder: str | Path = SHIPPED_WEIGHTS, config: DubConfig | None = None) -> Self:
        """Loads both networks from a folder. Raises the UserErrors of `Networks.from_weights`."""
        return cls(Networks.from_weights(folder, config))

    def dub(
        self, video: str | Path, audio: str | Path, output: str | Path, progress: Progress | None = None
    ) -> Summary:
        """Writes `output`: the person of `video` saying `audio`, as long as the sound.

        A video shorter than the sound runs forward and backward. Frames without a face stay as they are, and so do
        shots of one or two frames, such as flashes, in which a new mouth would only flicker.

        Args:
            video: a video or a picture with a face in it.
            audio: a sound file, or a video whose sound is taken.
            output: the file to write (.mp4, .mov or .mkv).
            progress: is called after each frame that was tracked ("track") or written ("write").

        Raises:
            UserError: unusable input, no face in any frame, or an output that cannot be written.
                Nothing is left behind.
        """
        video, audio, output = Path(video), Path(audio), Path(output)
        stopwatch = Stopwatch(STAGES)
        start = time.perf_counter()
        command_line.check_output(output, suffixes=WRITTEN, inputs=(video, audio))
        parse_pick(self.config.face)
        remarks: list[str] = []
        with stopwatch.stage("audio"):
            mel, duration = read_mel(audio, remarks)
        source = Video(video, fps=None if self.config.keep_fps else FPS)
        num_frames = int(np.ceil(round(duration * source.fps, 6)))
        with stopwatch.stage("track"):
            track = self.track(source, num_frames, progress)
        if not track.found.any():
            raise UserError(f"{video}: no face was found in any frame; choose a video where the face is seen")
        leave_out_short_shots(track)
        order = ping_pong(len(track.found), num_frames)  # (F,) source frame of every output frame
        width, height = track.frame_size
        if self.config.panel:
            width += height // 4
        drawing = Drawing(self.networks, source, track, mel, stopwatch)
        writer = VideoWriter(output, source.fps, (width, height), audio, lossless=self.config.lossless)
        with writer, closing(drawing.frames(order)) as frames:
            for frame in report(frames, "write", num_frames, progress):
                with stopwatch.stage("write"):
                    writer.write(frame)
        remarks += remarks_on(source, track)
        frames_without_face = int((~track.found[order]).sum())
        seconds = time.perf_counter() - start
        return Summary(num_frames, frames_without_face, seconds, stopwatch.seconds, remarks)

    def track(self, source: Video, num_frames: int, progress: Progress | None) -> FaceTrack:
        """Finds the face in a video's first frames, or in the track cache, if one is given."""
        config = self.config
        path = None
        if config.track_cache:
            path = track_path(config.track_cache, source.path, source.fps, config.face)
            track = load_track(path, num_frames)
            if track:
                return track
        frames_to_track = min(num_frames, source.num_frames)
        with closing(prefetch(islice(source, num_frames), READ_AHEAD)) as frames:
            track = track_faces(report(frames, "track", frames_to_track, progress), config.face)
        if path:
            save_track(path, track, complete=len(track.found) < num_frames)
        return track


def read_mel(audio: Path, remarks: list[str]) -> tuple[np.ndarray, float]:
    """The mel spectrogram (80, columns) of a sound file, and its length in seconds. Adds what users should know."""
    damage: list[str] = []
    notes: list[str] = []
    wav = read_audio(audio, damage, notes)
    remarks += [f"damaged, the rest of it was used: {audio}: {line}" for line in damage]
    remarks += [f"{audio}: {line}" for line in notes]
    seconds = len(wav) / SAMPLE_RATE
    if seconds < SHORTEST_SOUND:
        raise UserError(f"{audio}: only {seconds:.3f} s of sound; at least {SHORTEST_SOUND} s are needed")
    return log_mel(wav), seconds


def leave_out_short_shots(track: FaceTrack) -> None:
    """Treats faces of shots with fewer than `SHORTEST_SHOT` of them as not found, unless all shots are so short."""
    faces_of_shot = np.bincount(track.shots, track.found)
    enough = min(SHORTEST_SHOT, faces_of_shot.max())
    track.found &= faces_of_shot[track.shots] >= enough


def remarks_on(source: Video, track: FaceTrack) -> list[str]:
    """One line each for damage, what was done to the pictures, and cuts."""
    remarks = []
    if source.damage:
        remarks.append(f"damaged, the rest of it was used: {source.path}: {source.damage}")
    remarks += [f"{source.path}: {line}" for line in source.remarks]
    cuts = np.flatnonzero(track.cuts) / source.fps  # seconds
    if len(cuts):
        times = [f"{second:.1f}" for second in cuts[:MAX_LISTED_CUTS]]
        if len(cuts) > MAX_LISTED_CUTS:
            times.append("...")
        remarks.append(f"{source.path}: the shot changes at {', '.join(times)} s; the face in each shot was redrawn")
    return remarks


@dataclass(frozen=True)
class Shot:
    """R consecutive frames of the output that show one shot, and what is drawn into them."""

    frames: np.ndarray  # (R,) of the source
    moments: np.ndarray  # (R,) of the sound, in 1/25 s
    windows: np.ndarray  # (R, T) frames of this shot around each
    boxes: np.ndarray  # (R, 4) of the nearest frame with a face
    landmarks_in_frame: np.ndarray  # (R, 131, 2) to draw
    references: References


class Batch(NamedTuple):
    """B frames of a shot."""

    shot: Shot | None  # None: it shows no face
    places: np.ndarray  # (B,) of these frames in the shot
    frames: list[np.ndarray]


class Drawing:
    """Draws the frames of one video."""

    def __init__(
        self, networks: Networks, source: Video, track: FaceTrack, mel: np.ndarray, stopwatch: Stopwatch
    ) -> None:
        self.networks = networks
        self.config = networks.config
        self.source = source
        self.track = track
        self.mel = mel
        self.stopwatch = stopwatch
        # Boxes that may end outside the frame: clipped ones would show stage 1 a stretched face, as of another pose.
        self.whole_boxes = smooth_boxes(box_around(track.landmarks_in_frame), track.found, track.shots)  # (F, 4)
        self.openness = lip_openness(to_crop(track.landmarks_in_frame, track.boxes), 1.0)  # (F,)
        self.references_of = lru_cache(maxsize=2)(self.encode_references)  # two cameras often take turns

    def frames(self, order: np.ndarray) -> Generator[np.ndarray]:
        """Yields the finished frames of the output, which shows these source frames (F,)."""
        workers = min(available_cores(), MAX_WORKERS)
        start_worker = partial(share_cores, workers)
        with closing(prefetch(self.source.frames(order), READ_AHEAD)) as frames:
            batches = self.batches(order, frames)
            with closing(parallel_map(self.draw, batches, workers, workers, start_worker)) as drawn:
                for batch in drawn:
                    yield from batch

    def batches(self, order: np.ndarray, frames: Iterator[np.ndarray]) -> Iterator[Batch]:
        """Yields the frames to draw, shot by shot: source frames (F,), which `frames` gives in this order."""
        batch_size = self.config.batch_size
        cuts = np.flatnonzero(np.diff(self.track.shots[order])) + 1
        for outputs in np.split(np.arange(len(order)), cuts):
            shot = self.plan_shot(outputs, order[outputs])
            for places in batches(np.arange(len(outputs)), batch_size):
                yield Batch(shot, places, list(islice(frames, len(places))))

    def plan_shot(self, outputs: np.ndarray, frames: np.ndarray) -> Shot | None:
        """Prepares a shot: output frames (R,) that show source frames (R,). None if it shows no face."""
        number = self.track.shots[frames[0]]
        usable = self.usable_frames(number)  # (F,)
        if not usable.any():
            return None
        nearest = fill_gaps(usable)[frames]  # (R,) the nearest frames with a face
        with self.stopwatch.stage("landmarks"):
            landmarks_in_frame = self.predict_landmarks(usable, nearest, outputs[0])
        with self.stopwatch.stage("references"):
            references = self.references_of(number)
        return Shot(
            frames,
            moments=outputs * FPS / self.source.fps,
            windows=window_frames(len(outputs), self.networks.renderer.config.num_frames, self.source.fps),
            boxes=self.track.boxes[nearest],
            landmarks_in_frame=landmarks_in_frame,
            references=references,
        )

    def usable_frames(self, shot: int) -> np.ndarray:
        """(F,) bool, the frames of a shot that show the face."""
        return self.track.found & (self.track.shots == shot)

    def choose_references(self, usable: np.ndarray, count: int) -> np.ndarray:
        """Chooses among the usable frames (F,): spread over how far the mouth is open."""
        return spread_over_openness(np.where(usable, self.openness, np.nan), count)

    def predict_landmarks(self, usable: np.ndarray, nearest: np.ndarray, first: int) -> np.ndarray:
        """Landmarks to draw (R, 131, 2), in the frame; see `plan_shot`."""
        references = self.choose_references(usable, NUM_LANDMARK_REFERENCES)
        landmarks_in_crop = to_crop(self.track.landmarks_in_frame, self.whole_boxes)  # (F, 131, 2)
        predicted = self.networks.predict_landmarks(
            landmarks_in_crop[nearest], landmarks_in_crop[references], self.mel, self.source.fps, first
        )
        return to_frame(predicted, self.whole_boxes[nearest])

    def encode_references(self, shot: int) -> References:
        """The references of a shot."""
        networks = self.networks
        chosen = np.sort(self.choose_references(self.usable_frames(shot), networks.num_candidates))  # (M,)
        boxes = self.track.boxes[chosen]
        detail = 1
        if networks.detail:
            side = np.median(boxes[:, 2:] - boxes[:, :2])
            detail = min(MAX_DETAIL, int(np.ceil(side / networks.size)))
        images = []
        large_images = []
        for frame, box in zip(self.source.frames(chosen), boxes, strict=True):
            images.append(crop_face(frame, box, networks.size))
            if detail > 1:
                large_images.append(crop_detail(frame, box, detail * networks.size))
        return networks.encode_references(
            np.stack(images),
            to_crop(self.track.landmarks_in_frame[chosen], boxes),
            boxes,
            np.stack(large_images) if large_images else None,
        )

    def draw(self, batch: Batch) -> list[np.ndarray]:
        """Finishes the frames of a batch: redraws the face where one was found."""
        finished = list(batch.frames)
        panels: list[list[np.ndarray]] = [[] for _ in finished]
        with self.stopwatch.stage("draw"):
            if batch.shot is not None:
                found = self.track.found[batch.shot.frames[batch.places]]  # (B,)
                if found.any():
                    self.redraw(batch.shot, batch.places, np.flatnonzero(found), finished, panels)
            if self.config.panel:
                finished = [add_panel(frame, cells) for frame, cells in zip(finished, panels, strict=True)]
        return finished

    def redraw(
        self,
        shot: Shot,
        places: np.ndarray,
        with_face: np.ndarray,
        frames: list[np.ndarray],
        panels: list[list[np.ndarray]],
    ) -> None:
        """Redraws the faces of some frames of a batch, in place, and fills in their panels' cells."""
        size = self.networks.size
        crops = [crop_face(frames[i], shot.boxes[places[i]], size) for i in with_face]
        redrawn = places[with_face]
        sketches = self.draw_sketches(shot, redrawn)
        faces, warped = self.networks.draw_faces(
            np.stack(crops),
            to_crop(shot.landmarks_in_frame[redrawn], shot.boxes[redrawn]),
            sketches,
            shot.references,
            mel_windows(self.mel, shot.moments[redrawn]),
        )
        for j, i in enumerate(with_face):
            box = shot.boxes[places[i]]
            landmarks = shot.landmarks_in_frame[places[i]]
            old_landmarks = self.track.landmarks_in_frame[shot.frames[places[i]]]
            frames[i] = paste_face(frames[i], faces[j], box, old_landmarks, landmarks)
            if self.config.panel:
                marked = crop_face(mark_landmarks(frames[i], landmarks), box, size)
                middle = sketches.shape[1] // 2
                cells = (sketches[j, middle], 255 * warped[j], 255 * faces[j])
                panels[i] = [marked, *(cell.astype(np.uint8) for cell in cells)]

    def draw_sketches(self, shot: Shot, places: np.ndarray) -> np.ndarray:
        """Sketches of the windows around some frames (B,) of a shot: (B, T, S, S, 3) float32 in [0, 224]."""
        windows = shot.windows[places]  # (B, T)
        drawn, indices = np.unique(windows, return_inverse=True)  # windows overlap
        boxes = shot.boxes[drawn]
        landmarks_in_crop = to_crop(shot.landmarks_in_frame[drawn], boxes)
        sketches = [self.networks.sketch(*face) for face in zip(landmarks_in_crop, boxes, strict=True)]
        return np.stack(sketches)[indices.reshape(windows.shape)]


def mark_landmarks(frame: np.ndarray, landmarks_in_frame: np.ndarray) -> np.ndarray:
    """A copy of the frame (H, W, 3) with the landmarks (131, 2) drawn into it as green lines."""
    lines = [landmarks_in_frame[edge].round().astype(np.int32) for edge in EDGES]
    return cv2.polylines(frame.copy(), lines, isClosed=False, color=(0, 255, 0))


def report(frames: Iterable[np.ndarray], stage: str, total: int, progress: Progress | None) -> Iterator[np.ndarray]:
    """Passes frames on and reports each as done once the next one is asked for."""
    for done, frame in enumerate(frames, start=1):
        yield frame
        if progress is not None:
            progress(stage, done, total)


class ProgressBar:
    """Shows progress on the terminal: a bar for each stage."""

    def __init__(self) -> None:
        self.stage = ""
        self.bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.close()
            self.stage = stage
            self.bar = tqdm(total=total, desc=stage, unit="frame")
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@dataclass(frozen=True, kw_only=True)
class DubCommand(DubConfig):
    """Redraws the lower half of a face so that the mouth follows new speech."""

    video: Path
    """A video, or a picture (png, jpg, ...), with a face in it."""
    audio: Path
    """The new speech: any sound file, or a video whose sound is taken. The result is as long as this."""
    output: Path
    """The file to write (.mp4)."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""


def main(command: DubCommand) -> None:
    command_line.check_output(command.output, "--output", WRITTEN, inputs=(command.video, command.audio))
    with command_line.naming("--face"):
        parse_pick(command.face)
    dubber = Dubber.from_weights(command.weights, command)
    device = dubber.networks.device
    with closing(ProgressBar()) as bar:
        try:
            summary = dubber.dub(command.video, command.audio, command.output, bar)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            flags = f"--batch-size {command.batch_size}, --num-candidates {command.num_candidates}"
            raise UserError(f"{flags}: too little memory on {device}; try smaller numbers") from error
    print(
        f"{command.output}: {summary.frames} frames, {summary.frames_without_face} without the face (left as is), "
        f"{summary.seconds:.1f} s, {summary.frames / summary.seconds:.1f} frames a second on {device}"
    )
    for line in summary.remarks:
        print(line)


if __name__ == "__main__":
    command_line.run(main, DubCommand)
