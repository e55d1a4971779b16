"""Draws new faces into the frames of a video: references, batches, both networks, and compositing.

Paper section 3.2 and figure 3.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy import ndarray

from face.compositing import paste_face
from face.crop import box_around, crop_face, sides, smooth_boxes, to_crop, to_frame
from face.references import lip_openness, spread_over_openness
from face.sketch import GREY
from face.tracking import FaceTrack, fill_gaps
from media.audio import FPS, mel_windows
from media.planes import Picture, around, replace
from media.timing import window_frames
from media.video import Video
from networks import NUM_LANDMARK_REFERENCES, Networks, References, batches
from runtime.pipeline import parallel_map
from runtime.stopwatch import Stopwatch
from runtime.threads import available_cores

MAX_DETAIL = 4  # largest size of the references that supply detail, in multiples of the renderer's size
PIECE = 500  # frames whose landmarks are predicted at once, before they are drawn
GREEN = (0, 255, 0)
CORES = available_cores()
WORKERS = min(CORES, 4)  # threads that draw


@dataclass(frozen=True)
class Shot:
    """R consecutive output frames that show one shot or a piece of it, and what is drawn into them."""

    frames: ndarray  # (R,) of the source
    moments: ndarray  # (R,) of the sound, in 1/25 s
    windows: ndarray  # (R, T) positions in this shot of the frames around each
    boxes: ndarray  # (R, 4) of the nearest frame with a face
    landmarks_in_crop: ndarray  # (R, 131, 2) to draw, relative to these boxes
    references: References


class Batch(NamedTuple):
    """B frames of a shot."""

    shot: Shot | None  # None: there is nothing to draw
    places: ndarray  # (B,) positions of these frames in the shot
    pictures: list[Picture]


@dataclass
class Drawing:
    """Draws one face into the frames of a video: `pictures` yields the results."""

    networks: Networks
    source: Video
    track: FaceTrack
    mel: ndarray  # (80, columns)
    part: range  # output frames in which the face is redrawn; the sound starts at the first of them
    stopwatch: Stopwatch

    def __post_init__(self) -> None:
        track = self.track
        # These boxes may extend beyond the frame: clipped ones would show stage 1 a stretched face, like another pose.
        self.whole_boxes = smooth_boxes(box_around(track.landmarks_in_frame), track.found, track.shots)  # (F, 4)
        self.openness = lip_openness(track.landmarks_in_frame, sides(track.boxes)[:, 1])  # (F,)
        self.references_of = lru_cache(maxsize=2)(self.encode_references)  # two cameras often alternate

    def pictures(self, order: ndarray, pictures: Iterator[Picture]) -> Generator[Picture]:
        """Yields the finished output frames.

        Args:
            order: (F,) the source frame of each output frame.
            pictures: the source frames in this order.
        """
        with closing(parallel_map(self.draw, self.batches(order, pictures), WORKERS, WORKERS)) as drawn:
            for batch in drawn:
                yield from batch

    def batches(self, order: ndarray, pictures: Iterator[Picture]) -> Iterator[Batch]:
        """Yields the frames in batches, shot by shot, and a long shot piece by piece; see `pictures`."""
        cuts = np.flatnonzero(np.diff(self.track.shots[order])) + 1
        edges = np.unique([0, *cuts, self.part.start, self.part.stop, len(order)])
        networks = self.networks
        windows = networks.landmark_generator.config.num_frames + networks.renderer.config.num_frames
        margin = windows * self.source.fps / FPS  # upper bound of the frames that a picture depends on to either side
        for shown in np.split(np.arange(len(order)), edges[1:-1]):
            for piece in batches(shown, PIECE):
                context = shown[(shown >= piece[0] - margin) & (shown <= piece[-1] + margin)]
                shot = None
                if shown[0] in self.part:
                    shot = self.plan_shot(context - self.part.start, order[context])
                for outputs in batches(piece, networks.config.batch_size):
                    yield Batch(shot, outputs - context[0], list(islice(pictures, len(outputs))))

    def plan_shot(self, outputs: ndarray, frames: ndarray) -> Shot | None:
        """Prepares a shot.

        Args:
            outputs: (R,) output frames, counted from the start of the part that is redrawn.
            frames: (R,) the source frames that they show.

        Returns:
            None if the shot shows no face.
        """
        track = self.track
        networks = self.networks
        usable = track.found & (track.shots == track.shots[frames[0]])  # (F,) bool
        if not usable.any():
            return None
        nearest = fill_gaps(usable)[frames]  # (R,) the nearest frames with a face
        with self.stopwatch.stage("landmarks"):
            predicted = networks.predict_landmarks(
                self.in_whole_crop(nearest),
                self.in_whole_crop(self.choose(usable, NUM_LANDMARK_REFERENCES)),
                self.mel,
                self.source.fps,
                outputs[0],
            )
            landmarks_in_frame = to_frame(predicted, self.whole_boxes[nearest])
        with self.stopwatch.stage("references"):
            count = networks.num_candidates
            share = networks.config.reference_share
            if share is not None:
                count = max(1, round(share * usable.sum()))
            references = self.references_of(tuple(self.choose(usable, count)))
        return Shot(
            frames,
            moments=outputs * FPS / self.source.fps,
            windows=window_frames(len(outputs), networks.renderer.config.num_frames, self.source.fps),
            boxes=track.boxes[nearest],
            landmarks_in_crop=to_crop(landmarks_in_frame, track.boxes[nearest]),
            references=references,
        )

    def in_whole_crop(self, frames: ndarray) -> ndarray:
        """Returns the detected landmarks (n, 131, 2) of frames (n,), in crops that may extend beyond the frame."""
        return to_crop(self.track.landmarks_in_frame[frames], self.whole_boxes[frames])

    def choose(self, usable: ndarray, count: int) -> ndarray:
        """Chooses `count` of the usable frames (F,) evenly from the most closed to the most open mouth."""
        return spread_over_openness(np.where(usable, self.openness, np.nan), count)

    def encode_references(self, frames: tuple[int, ...]) -> References:
        """Reads and encodes M source frames as references."""
        networks = self.networks
        size = networks.size
        chosen = np.sort(frames)  # (M,)
        boxes = self.track.boxes[chosen]
        detail = 1
        if networks.detail:
            detail = min(MAX_DETAIL, int(np.ceil(np.median(sides(boxes)) / size)))
        images = np.empty((len(chosen), size, size, 3), np.uint8)
        large_images = np.empty((len(chosen), detail * size, detail * size, 3), np.uint8)
        for i, (picture, box) in enumerate(zip(self.source.pictures(chosen), boxes, strict=True)):
            region = around(picture, box)
            images[i] = crop_face(region.rgb, region.box, size)
            if detail > 1:
                large_images[i] = crop_face(region.rgb, region.box, detail * size, detail=True)
        landmarks_in_crop = to_crop(self.track.landmarks_in_frame[chosen], boxes)
        return networks.encode_references(images, landmarks_in_crop, boxes, large_images if detail > 1 else None)

    def draw(self, batch: Batch) -> list[Picture]:
        """Finishes the frames of a batch: redraws the face where it was found."""
        torch.set_num_threads(CORES // WORKERS)
        with self.stopwatch.stage("draw"):
            if batch.shot is not None:
                self.redraw(batch.shot, batch.places, batch.pictures)
        return batch.pictures

    def redraw(self, shot: Shot, places: ndarray, pictures: list[Picture]) -> None:
        """Replaces the pictures (B,) in which the face was found."""
        with_face = np.flatnonzero(self.track.found[shot.frames[places]])
        if not len(with_face):
            return
        networks = self.networks
        size = networks.size
        places = places[with_face]
        boxes = shot.boxes[places]
        regions = [around(pictures[i], box) for i, box in zip(with_face, boxes, strict=True)]
        old = to_crop(self.track.landmarks_in_frame[shot.frames[places]], boxes)  # (B, 131, 2)
        new = shot.landmarks_in_crop[places]
        sketches = networks.draw_sketches(shot.landmarks_in_crop, shot.boxes, shot.windows[places])
        faces, warped = networks.draw_faces(
            np.stack([crop_face(region.rgb, region.box, size) for region in regions]),
            new,
            sketches,
            shot.references,
            mel_windows(self.mel, shot.moments[places]),
        )
        for j, (i, region) in enumerate(zip(with_face, regions, strict=True)):
            pasted = paste_face(region.rgb, faces[j], region.box, old[j], new[j])
            if networks.config.panel:
                sketch = sketches[j, sketches.shape[1] // 2]
                marked = crop_face(pasted, region.box, size)
                marked[sketch[..., 0] > GREY / 2] = GREEN
                fill_panel(pasted, [marked, sketch, 255 * warped[j], 255 * faces[j]])
            pictures[i] = replace(pictures[i], region, pasted)


def with_panel(frame: ndarray) -> ndarray:
    """Adds a black column for four square cells at the right of a frame (H, W, 3)."""
    return cv2.copyMakeBorder(frame, 0, 0, 0, len(frame) // 4, cv2.BORDER_CONSTANT)


def fill_panel(frame: ndarray, cells: list[ndarray]) -> None:
    """Draws landmarks, sketch, warped reference and drawn face into the column."""
    side = len(frame) // 4
    column = [cv2.resize(cell.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA) for cell in cells]
    frame[: 4 * side, -side:] = np.concatenate(column)
