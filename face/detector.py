"""Face meshes in pictures. The only file that imports MediaPipe, and only once a detector is made.

The mesh is precise wherever it is pointed, but its built-in detector sees faces from about a fifth of the picture up.
So a followed face is looked at through a window around it, and a search also asks the long-range detector for places.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from command_line import UserError
from face.landmarks import MESH_POINTS

WINDOW = 2.5  # sides of the face box that the window around a followed face spans
NARROW_WINDOW = 1.7  # the same where other faces are near, and for a look at a supposed face
KEEP_WINDOW = 1.3  # sides of the face box that must stay inside the window; else it moves
KEEP_SCALE = 1.6  # growth or shrinking of the face after which the window is cut anew
ENOUGH_PIXELS = 160  # of a face's shorter side: more adds nothing, as the mesh network sees faces at about 128
TILES = 0.7  # side of a search tile, in shorter sides of the frame
SMALLEST_TILED = 96  # pixels of the frame's shorter side


class FaceDetector:
    """Finds faces in any frame and follows one of them cheaply. RGB uint8 in, meshes (478, 2) f32 in pixels out.

    Args:
        max_faces: how many a search returns at most.
        model: a MediaPipe Tasks `face_landmarker.task` to use in place of the mesh that MediaPipe carries.

    Raises:
        UserError: `model` is no usable model file.
    """

    def __init__(self, max_faces: int = 5, model: Path | None = None) -> None:
        self._max_faces = max_faces
        with _silence():
            import mediapipe as mp

            make: Any = _CarriedMesh if model is None else partial(_TaskMesh, model)
            self._search, self._track = make(max_faces, tracking=False), make(1, tracking=True)
            solutions: Any = mp.solutions  # its members are made at run time
            self._long_range = solutions.face_detection.FaceDetection(model_selection=1)
            for graph in (self._search, self._track, self._long_range.process):
                graph(np.zeros((16, 16, 3), np.uint8))  # graphs start, and chatter, in the background: wait for them
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
            rough = [extent(mesh) for mesh in self._search(_cut(frame, whole))]  # good for the place, not for the mesh
            self._add_faces(faces, frame, rough + self._places(frame, whole))
            for tile in _tiles(frame) if thorough and not faces else ():
                self._add_faces(faces, frame, self._places(frame, tile))
        return sorted(faces, key=lambda face: -float(np.prod(np.ptp(face, axis=0))))[: self._max_faces]

    def follow(self, frame: np.ndarray, box: np.ndarray, alone: bool = True) -> np.ndarray | None:
        """The mesh of the face that was at `box` (4,) one frame earlier, or of another one near it, or None.

        Frames must come in order; `forget` starts anew. With `alone` false the window is kept narrow, so that it holds
        no neighbour.
        """
        window, needed, side = self._window, _around(box, KEEP_WINDOW, frame), float((box[2:] - box[:2]).max())
        stays = window is not None and (needed[:2] >= window[:2]).all() and (needed[2:] <= window[2:]).all()
        if window is None or not stays or not 1 / KEEP_SCALE < side / self._side < KEEP_SCALE:
            shrink = max(1, int((box[2:] - box[:2]).min()) // ENOUGH_PIXELS)
            window = _around(box, WINDOW if alone else NARROW_WINDOW, frame)
            window[2:] -= (window[2:] - window[:2]) % shrink  # whole blocks of pixels are averaged
            self._window, self._side, self._shrink = window, side, shrink
            with _silence():
                self._track.reset()
                self._track(_cut(frame, window, shrink))  # a second look, from where this one sees it, is steadier
        picture = _cut(frame, window, self._shrink)
        faces = self._track(picture) or self._search(picture)
        faces = [face * self._shrink + window[:2].astype(np.float32) for face in faces]
        return min(faces, key=lambda face: float(np.linalg.norm(centre(extent(face)) - centre(box))), default=None)

    def forget(self) -> None:
        """Ends following: the next `follow` depends on nothing seen before."""
        self._window: np.ndarray | None = None
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
            for mesh in self._search(_cut(frame, window)):
                face = mesh + window[:2].astype(np.float32)
                middle = centre(extent(face))
                if _within(middle, [box]) and not _within(middle, map(extent, faces)):
                    faces.append(face)


class _CarriedMesh:
    """The face mesh whose models come inside MediaPipe: RGB picture -> meshes (478, 2) in its pixels."""

    def __init__(self, max_faces: int, tracking: bool) -> None:
        import mediapipe as mp

        make: Any = mp.solutions
        self._mesh = make.face_mesh.FaceMesh(not tracking, max_num_faces=max_faces, refine_landmarks=True)
        self.reset, self.close = self._mesh.reset, self._mesh.close

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        return [_to_array(face.landmark, picture) for face in self._mesh.process(picture).multi_face_landmarks or []]


class _TaskMesh:
    """The same from a MediaPipe Tasks file."""

    def __init__(self, model: Path, max_faces: int, tracking: bool) -> None:
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision

        mode = vision.RunningMode.VIDEO if tracking else vision.RunningMode.IMAGE
        base = tasks.BaseOptions(model_asset_path=str(model))
        options = vision.FaceLandmarkerOptions(base_options=base, running_mode=mode, num_faces=max_faces)
        self._make, self._tracking = partial(vision.FaceLandmarker.create_from_options, options), tracking
        try:
            self._mesh, self._time = self._make(), 0
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"{model}: not a usable MediaPipe face_landmarker.task file ({error})") from None

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        import mediapipe as mp

        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=picture)
        self._time += 40  # ms
        result = self._mesh.detect_for_video(image, self._time) if self._tracking else self._mesh.detect(image)
        return [_to_array(face, picture) for face in result.face_landmarks]

    def reset(self) -> None:
        self._mesh.close()
        self._mesh, self._time = self._make(), 0

    def close(self) -> None:
        self._mesh.close()


def extent(points: np.ndarray) -> np.ndarray:
    """(K, 2) points -> (4,) x0, y0, x1, y1."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def centre(box: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 2)."""
    return (box[..., :2] + box[..., 2:]) / 2


def _to_array(points: Iterable[Any], picture: np.ndarray) -> np.ndarray:
    """MediaPipe's normalised points -> (478, 2) f32 pixels of the picture."""
    flat = np.fromiter((value for point in points for value in (point.x, point.y)), np.float32, 2 * MESH_POINTS)
    return flat.reshape(MESH_POINTS, 2) * np.array([picture.shape[1], picture.shape[0]], np.float32)


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
    if shrink == 1:
        return np.ascontiguousarray(frame[y0:y1, x0:x1])
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
