"""Face meshes in pictures. The only file that imports MediaPipe, and only once a detector is made.

The mesh is precise wherever it is pointed, but its built-in detector sees faces from about a fifth of the picture up.
So a followed face is looked at through a window around it, and a search also asks the long-range detector for places.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import cv2
import numpy as np

WINDOW = 2.5  # sides of the face box that the window around a followed face spans
NARROW_WINDOW = 1.7  # the same where other faces are near, and for a look at a supposed face
KEEP_WINDOW = 1.3  # sides of the face box that must stay inside the window; else it moves
KEEP_SCALE = 1.6  # growth or shrinking of the face after which the window is cut anew
ENOUGH_PIXELS = 160  # of a face's shorter side: more adds nothing, as the mesh network sees faces at about 128
TILES = 0.7  # side of a search tile, in shorter sides of the frame
SMALLEST_TILED = 96  # pixels of the frame's shorter side
MAX_FACES = 5  # that a search returns


class FaceDetector:
    """Finds faces in any frame and follows one of them cheaply. RGB uint8 in, meshes (478, 2) f32 in pixels out."""

    def __init__(self) -> None:
        with _silence():
            import mediapipe as mp

            solutions: Any = mp.solutions  # its members are made at run time
            make = partial(solutions.face_mesh.FaceMesh, refine_landmarks=True)
            self._search, self._track = make(static_image_mode=True, max_num_faces=MAX_FACES), make(max_num_faces=1)
            self._long_range = solutions.face_detection.FaceDetection(model_selection=1)
            for graph in (self._search, self._track, self._long_range):  # they start, and chatter, in the background
                graph.process(np.zeros((16, 16, 3), np.uint8))  # waits for that
        self.forget()

    def close(self) -> None:
        for graph in (self._search, self._track, self._long_range):
            graph.close()

    def detect(self, frame: np.ndarray, thorough: bool = True) -> list[np.ndarray]:
        """All faces of one frame (H, W, 3), largest first; what was seen before makes no difference.

        Faces from about a tenth of the frame are found; if there are none, `thorough` looks at overlapping tiles,
        which takes several times as long and finds those from about a twentieth.
        """
        whole = np.array([0, 0, frame.shape[1], frame.shape[0]])
        faces: list[np.ndarray] = []
        with _silence():
            rough = map(extent, _meshes(self._search, frame, whole))  # good for the place, not for the mesh
            self._add_faces(faces, frame, [*rough, *self._places(frame, whole)])
            for tile in _tiles(frame) if thorough and not faces else ():
                self._add_faces(faces, frame, self._places(frame, tile))
        return sorted(faces, key=lambda face: -float(np.prod(np.ptp(face, axis=0))))[:MAX_FACES]

    def follow(self, frame: np.ndarray, box: np.ndarray, alone: bool = True) -> np.ndarray | None:
        """The mesh of the face that was at `box` (4,) one frame earlier, or of another one near it, or None.

        Frames must come in order; `forget` starts anew. With `alone` false the window is kept narrow, so that it holds
        no neighbour.
        """
        needed, side = _around(box, KEEP_WINDOW, frame), float((box[2:] - box[:2]).max())
        stays = (needed[:2] >= self._window[:2]).all() and (needed[2:] <= self._window[2:]).all()
        if not stays or not 1 / KEEP_SCALE < side / self._side < KEEP_SCALE:
            self._side, self._shrink = side, max(1, int((box[2:] - box[:2]).min()) // ENOUGH_PIXELS)
            self._window = _around(box, WINDOW if alone else NARROW_WINDOW, frame)
            self._window[2:] -= (self._window[2:] - self._window[:2]) % self._shrink  # whole blocks are averaged
            with _silence():
                self._track.reset()
                _meshes(self._track, frame, self._window, self._shrink)  # a second look, led by this one, is steadier
        view = frame, self._window, self._shrink
        faces = _meshes(self._track, *view) or _meshes(self._search, *view)
        return min(faces, key=lambda face: float(np.linalg.norm(centre(extent(face)) - centre(box))), default=None)

    def forget(self) -> None:
        """Ends following: the next `follow` depends on nothing seen before."""
        self._window = np.zeros(4, int)  # holds no face, so that the next look cuts one
        self._side, self._shrink = 1.0, 1

    def _places(self, frame: np.ndarray, tile: np.ndarray) -> list[np.ndarray]:
        """Boxes in a tile of the frame where the long-range detector supposes faces."""
        found = self._long_range.process(_cut(frame, tile)).detections or []
        places = [detection.location_data.relative_bounding_box for detection in found]
        boxes = [np.array([p.xmin, p.ymin, p.xmin + p.width, p.ymin + p.height]) for p in places]
        return [box * np.tile(tile[2:] - tile[:2], 2) + np.tile(tile[:2], 2) for box in boxes]

    def _add_faces(self, faces: list[np.ndarray], frame: np.ndarray, boxes: list[np.ndarray]) -> None:
        """Looks at each box from near and adds the faces that the mesh confirms there, unless they are known."""
        for box in boxes:
            window = _around(box, NARROW_WINDOW, frame)
            if _within(centre(box), map(extent, faces)) or (window[2:] - window[:2]).min() < 2:
                continue
            for face in _meshes(self._search, frame, window):
                middle = centre(extent(face))
                if _within(middle, [box]) and not _within(middle, map(extent, faces)):
                    faces.append(face)


def extent(points: np.ndarray) -> np.ndarray:
    """(K, 2) points -> (4,) x0, y0, x1, y1."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def centre(box: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 2)."""
    return (box[..., :2] + box[..., 2:]) / 2


def _meshes(network: Any, frame: np.ndarray, window: np.ndarray, shrink: int = 1) -> list[np.ndarray]:
    """What a mesh network sees in a window (4,) of the frame: meshes (478, 2) f32 in pixels of the frame."""
    picture = _cut(frame, window, shrink)
    size, corner = np.array(picture.shape[1::-1], np.float32), window[:2].astype(np.float32)
    found = network.process(picture).multi_face_landmarks or []
    points = [np.array([(point.x, point.y) for point in face.landmark], np.float32) for face in found]  # in [0, 1]
    return [mesh * size * shrink + corner for mesh in points]


def _within(point: np.ndarray, boxes: Iterable[np.ndarray]) -> bool:
    return any((point > box[:2]).all() and (point < box[2:]).all() for box in boxes)


def _around(box: np.ndarray, zoom: float, frame: np.ndarray) -> np.ndarray:
    """(4,) int: a square of `zoom` times the box's longer side around its centre, clipped to the frame."""
    half = zoom * (box[2:] - box[:2]).max() / 2
    corners = np.concatenate([np.floor(centre(box) - half), np.ceil(centre(box) + half)])
    return np.clip(corners, 0, np.tile(frame.shape[1::-1], 2)).astype(int)


def _tiles(frame: np.ndarray) -> Iterator[np.ndarray]:
    """Squares that cover the frame, half of each overlapping the next; none where a face would be too small to use."""
    height, width = frame.shape[:2]
    if min(width, height) < SMALLEST_TILED:
        return
    side = max(int(TILES * min(width, height)), max(width, height) // 4)
    rest = np.maximum([height - side, width - side], 0)
    for y, x in product(*(np.linspace(0, r, 1 + -(-2 * r // side)).astype(int) for r in rest)):
        yield np.array([x, y, min(x + side, width), min(y + side, height)])


def _cut(frame: np.ndarray, window: np.ndarray, shrink: int = 1) -> np.ndarray:
    x0, y0, x1, y1 = (int(side) for side in window)
    return cv2.resize(frame[y0:y1, x0:x1], ((x1 - x0) // shrink, (y1 - y0) // shrink), interpolation=cv2.INTER_AREA)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps the start-up chatter of MediaPipe's C++ libraries off stderr; it has no switch of its own."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
