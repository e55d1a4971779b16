"""Dubs a video, or brings a picture to life: python inference.py --video V --audio A --output O.mp4

Paper section 3.4. The video is read twice, so that memory does not grow with its length: once to find the face in every
frame, once to draw it. In between, for each shot, stage 1 turns the sound into lips and jaws for all its frames.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import networks
from face.compositing import add_panel, paste_face
from face.crop import box_around, crop_face, smooth_boxes, to_crop, to_frame
from face.landmarks import EDGES
from face.references import lip_openness, spread_over_openness
from face.tracking import FaceTrack, fill_gaps, parse_pick, track_faces
from media import audio as sound
from media.timing import ping_pong, window_frames
from media.video import WRITTEN, Video, VideoWriter, read_audio
from networks import Networks, References, batches
from runtime import command_line
from runtime.command_line import UserError
from runtime.device import out_of_memory

SHORTEST_SOUND = 0.2  # seconds: one mel window
SHORTEST_SHOT = 3  # frames with a face that a shot needs, unless there are no others
TOLD = 5  # changes of the shot
MOST_DETAIL = 4  # times the network's size, up to which references are kept for their detail
STAGES: tuple[str, ...] = ("listen", "track", "landmarks", "references", "draw")  # of a dub, timed


@dataclass(frozen=True)
class Config:
    """Redraws the lower half of a face so that the mouth follows new speech."""

    video: Path
    """A video, or a picture (png, jpg, ...), with a face in it."""
    audio: Path
    """The new speech: any sound file, or a video whose sound is taken. The result is as long as this."""
    output: Path
    """The file to write (.mp4)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto: the fastest there is."""
    num_references: int = networks.NUM_REFERENCES
    """Reference images that the renderer looks at for a frame. More cost time; Table 5 shows little gain above 5."""
    num_candidates: int = 100
    """Frames that these references are chosen from, the nearest for each frame, by weights trained for it (lite)."""
    weights: Path = networks.SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    face: str = "largest"
    """Which face, if there are several: largest, left, right, a number from the left (0, 1, ...) or a point as x,y."""
    keep_fps: bool = False
    """Keep the video's own frame rate instead of the 25 frames a second that the networks were made for."""
    panel: bool = False
    """Write source, sketch, reference and drawn face beside the result, to see where a fault comes from."""
    half: bool = True
    """Draw in bfloat16 where this machine is faster in it; no eye sees the difference."""
    detail: bool = True
    """Where the face is larger than the network draws it, take its fine detail from the references (as above: lite)."""
    lossless: bool = False
    """Lossless picture (H.264 in RGB; large, for scoring), so that no codec noise is measured."""
    batch_size: int = networks.BATCH_SIZE
    """Frames drawn at once. Larger is faster on a GPU."""


@dataclass(frozen=True)
class Summary:
    """What `Dubber.dub` did."""

    frames: int
    frames_without_face: int
    seconds: float  # wall time of the whole job
    stage_seconds: dict[str, float]  # wall time by stage
    remarks: list[str]  # what could not be decoded, what was shrunk, and where the shot changes


class Take(NamedTuple):
    """R frames of the output in a row that show one shot, and the landmarks to draw into them."""

    order: np.ndarray  # (R,) frames of the source
    moments: np.ndarray  # (R,) of the sound, in 1/25 s
    windows: np.ndarray  # (R, T) the frames, of these, around each
    boxes: np.ndarray  # (R, 4) of the nearest frame with a face
    landmarks_in_crop: np.ndarray  # (R, 131, 2)


class Dubber(Networks):
    """Ready to dub. Importable: `Dubber.from_weights(folder).dub(video, audio, output)`."""

    def dub(
        self, video: str | Path, audio: str | Path, output: str | Path, face: str = Config.face,
        keep_fps: bool = False, panel: bool = False, lossless: bool = False, progress: bool = True,
    ) -> Summary:  # fmt: skip
        """Writes `output`: the person of `video` saying `audio`, as long as the sound.

        A video shorter than the sound runs forward and backward. Frames without a face pass through untouched, and so
        do shots of one or two frames, such as flashes, in which a new mouth would only flicker.

        Raises:
            UserError: unusable input, no face in any frame, or an output that cannot be written.
                Nothing is left behind.
        """
        times = [time.perf_counter()]
        video, audio, output = map(Path, (video, audio, output))
        command_line.check_output(output, "--output", WRITTEN, inputs=(video, audio))
        parse_pick(face)
        damage: list[str] = []
        wav = read_audio(audio, damage)
        seconds = len(wav) / sound.SAMPLE_RATE
        if seconds < SHORTEST_SOUND:
            raise UserError(f"--audio {audio}: only {seconds:.3f} s long; at least {SHORTEST_SOUND} s are needed")
        mel = sound.log_mel(wav)  # (80, columns)
        del wav  # may be long
        source = Video(video, fps=None if keep_fps else sound.FPS)
        wanted = int(np.ceil(round(seconds * source.fps, 6)))
        times.append(time.perf_counter())

        sought = tqdm(islice(source, wanted), "finding the face", disable=not progress, unit="frame")
        track = track_faces(sought, face)
        if not track.found.any():
            raise UserError(f"--video {video}: no face was found in any frame; choose a video where the face is seen")
        sizes = np.bincount(track.shots, track.found)  # of the shots
        track.found &= (sizes >= min(SHORTEST_SHOT, sizes.max()))[track.shots]
        times.append(time.perf_counter())

        order = ping_pong(len(track.found), wanted)  # (wanted,) source frame of every output frame
        width, height = track.frame_size
        canvas = (width + height // 4, height) if panel else (width, height)
        stages = dict(zip(STAGES, [*np.diff(times).tolist(), 0.0, 0.0, 0.0], strict=True))
        drawn = self._draw_shots(source, track, order, mel, panel, stages)
        with VideoWriter(output, source.fps, canvas, audio=audio, lossless=lossless) as writer:
            for frame in tqdm(drawn, "drawing", wanted, disable=not progress, unit="frame"):
                writer.write(frame)
        times.append(time.perf_counter())
        stages["draw"] = times[-1] - times[0] - sum(stages.values())
        damaged = [f"{audio}: {x}" for x in damage] + [f"{video}: {source.damage}"] * bool(source.damage)
        remarks = [f"damaged, the rest of it was used: {x}" for x in damaged]
        remarks += [f"{video}: shrunk to {width} x {height} pixels"] * source.shrunk
        if len(cuts := np.flatnonzero(track.cuts) / source.fps):
            when = ", ".join(f"{second:.1f}" for second in cuts[:TOLD]) + ", ..." * (len(cuts) > TOLD)
            remarks.append(f"{video}: the shot changes at {when} s; whoever is seen then was redrawn too")
        return Summary(wanted, int((~track.found[order]).sum()), times[-1] - times[0], stages, remarks)

    def _draw_shots(
        self, source: Video, track: FaceTrack, order: np.ndarray, mel: np.ndarray, panel: bool, stages: dict[str, float]
    ) -> Iterator[np.ndarray]:
        """Yields the finished frames (wanted,), each shot as if there were no other; adds to the times of `stages`."""
        # A box that ends at the frame's edge would show stage 1 a stretched face, as of another pose.
        whole = smooth_boxes(box_around(track.landmarks_in_frame), track.found, track.shots)  # (F, 4)
        heard = to_crop(track.landmarks_in_frame, whole)  # (F, 131, 2)
        openness = lip_openness(to_crop(track.landmarks_in_frame, track.boxes), 1.0)  # (F,)
        references_of = lru_cache(maxsize=2)(partial(self._references, source, track))  # two cameras often take turns
        frames, changes = source.frames(order), np.flatnonzero(np.diff(track.shots[order])) + 1
        for run in np.split(np.arange(len(order)), changes):  # (R,) frames in a row of one shot
            usable = track.found & (track.shots == track.shots[order[run[0]]])  # (F,)
            if not usable.any():
                untouched = islice(frames, len(run))
                yield from (add_panel(frame, []) for frame in untouched) if panel else untouched
                continue
            began = time.perf_counter()
            usual = np.where(usable, openness, np.nan)
            listened = spread_over_openness(usual, networks.NUM_LANDMARK_REFERENCES)
            places = fill_gaps(usable)[order[run]]  # (R,) the nearest frames with a face
            predicted = self.predict_landmarks(heard[places], heard[listened], mel, source.fps, run[0])
            predicted = to_crop(to_frame(predicted, whole[places]), track.boxes[places])
            stages["landmarks"] += time.perf_counter() - began
            began = time.perf_counter()
            references = references_of(tuple(sorted(spread_over_openness(usual, self.num_candidates))))
            stages["references"] += time.perf_counter() - began
            windows = window_frames(len(run), self.renderer.config.num_frames, source.fps)  # (R, T)
            take = Take(order[run], run * sound.FPS / source.fps, windows, track.boxes[places], predicted)
            yield from self._draw(frames, track, take, references, mel, panel)

    def _references(self, source: Video, track: FaceTrack, shown: tuple[int, ...]) -> References:
        boxes = track.boxes[list(shown)]  # (M, 4)
        side = np.median(boxes[:, 2:] - boxes[:, :2])
        factor = min(MOST_DETAIL, int(np.ceil(side / self.size))) if self.detail else 1
        sizes = [self.size, factor * self.size] if factor > 1 else [self.size]
        pictures = zip(source.frames(shown), boxes, strict=True)
        crops = [[crop_face(frame, box, size) for size in sizes] for frame, box in pictures]
        images, *larger = (np.stack(of_size) for of_size in zip(*crops, strict=True))
        return self.encode_references(images, to_crop(track.landmarks_in_frame[list(shown)], boxes), boxes, *larger)

    def _draw(
        self, frames: Iterator[np.ndarray], track: FaceTrack, take: Take, references: References, mel: np.ndarray,
        panel: bool,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Yields a shot's finished frames; each sketch is drawn once and kept while a window may need it."""
        order, moments, windows, boxes, predicted = take
        kept = self.batch_size + 2 * int(np.ptp(windows, axis=1).max())
        sketch_of = lru_cache(maxsize=kept)(lambda i: self.sketch(predicted[i], boxes[i]))
        for batch in batches(np.arange(len(order)), self.batch_size):
            results = dict(zip(batch, frames, strict=False))  # output frame -> picture
            cells: dict[int, list[np.ndarray]] = {}  # of the panel
            seen = batch[track.found[order[batch]]]  # frames with a face
            if len(seen):
                crops = np.stack([crop_face(results[i], boxes[i], self.size) for i in seen])
                stacked = np.stack([[sketch_of(i) for i in window] for window in windows[seen]])  # (B, T, S, S, 3)
                mels = sound.mel_windows(mel, moments[seen])
                faces, warped = self.draw_faces(crops, predicted[seen], stacked, references, mels)
                for i, drawn, aligned in zip(seen, faces, warped, strict=True):
                    new = to_frame(predicted[i], boxes[i])
                    results[i] = paste_face(results[i], drawn, boxes[i], track.landmarks_in_frame[order[i]], new)
                    if panel:
                        lines = [new[edge].round().astype(np.int32) for edge in EDGES]
                        marked = cv2.polylines(results[i].copy(), lines, isClosed=False, color=(0, 255, 0))
                        pictures = (sketch_of(i), aligned * 255, drawn * 255)
                        cells[i] = [crop_face(marked, boxes[i], self.size), *(p.astype(np.uint8) for p in pictures)]
            yield from (add_panel(r, cells.get(i, [])) if panel else r for i, r in results.items())


def main(config: Config) -> None:
    dubber = Dubber.from_weights(
        config.weights, config.device, num_references=config.num_references, batch_size=config.batch_size,
        num_candidates=config.num_candidates, detail=config.detail, half=config.half,
    )  # fmt: skip
    try:
        summary = dubber.dub(
            config.video, config.audio, config.output, config.face, config.keep_fps, config.panel, config.lossless
        )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        wanted = f"--batch-size {config.batch_size}, --num-candidates {config.num_candidates}"
        raise UserError(f"{wanted}: too little memory on {dubber.device}; try smaller numbers") from error
    print(
        f"{config.output}: {summary.frames} frames, {summary.frames_without_face} without the face (left as is), "
        f"{summary.seconds:.1f} s, {summary.frames / summary.seconds:.1f} frames a second on {dubber.device}"
    )
    for line in summary.remarks:
        print(line)


if __name__ == "__main__":
    command_line.run(main, Config)
