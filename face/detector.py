"""Face meshes in pictures. The only file that imports MediaPipe, and only when a detector is created.

The mesh network is precise, but its own detector finds only faces of at least about a fifth of the picture. A tracked
face is therefore located in a window around it, and a search also uses the long-range detector.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from face.crop import centre, extent, sides, to_frame

WINDOW = 2.5  # side of the window around a tracked face, in sides of the face box
NARROW_WINDOW = 1.7  # the same where other faces are near, and for verifying a candidate
KEEP_WINDOW = 1.3  # sides of the face box that must stay inside the window; otherwise a new window is cut
KEEP_SCALE = 1.6  # factor by which the face may grow or shrink before a new window is cut
ENOUGH_PIXELS = 160  # of a face's shorter side; more is useless, because the mesh network sees faces at about 128
TILES = 0.7  # side of a search tile, in shorter sides of the frame
SMALLEST_TILED = 96  # pixels of the frame's shorter side
BORDER = 0.5  # width of the border added around a possible close-up, in longer sides of the frame
MAX_FACES = 5  # returned by a search
HAND_WINDOW = 1.6  # side of the window in which hands are searched, in sides of the face box
HAND_PIXELS = 256  # of that window
HAND_CONFIDENCE = 0.8  # with a lower threshold, cheeks and shoulders pass for hands


class FaceDetector:
    """Finds faces in a frame and follows one of them cheaply. RGB uint8 in, meshes (478, 2) f32 in pixels out."""

    def __init__(self, hands: bool = False):
        """With `hands`, `covers` can find hands; otherwise it finds none."""
        with _silence():
            import mediapipe as mp

            solutions: Any = mp.solutions  # members are created at run time
            face_mesh = solutions.face_mesh.FaceMesh
            self._search = face_mesh(static_image_mode=True, max_num_faces=MAX_FACES, refine_landmarks=True)
            self._track = face_mesh(max_num_faces=1, refine_landmarks=True)
            self._long_range = solutions.face_detection.FaceDetection(model_selection=1)
            self._networks = [self._search, self._track, self._long_range]
            self._hands = None
            if hands:
                self._hands = solutions.hands.Hands(static_image_mode=True, min_detection_confidence=HAND_CONFIDENCE)
                self._networks.append(self._hands)
            for network in self._networks:  # networks start, and log, in the background
                network.process(np.zeros((16, 16, 3), np.uint8))  # waits until this one has started
        self.forget()

    def close(self) -> None:
        for network in self._networks:
            network.close()

    def detect(self, frame: ndarray, thorough: bool = True) -> list[ndarray]:
        """Finds all faces of one frame (H, W, 3), largest first, independently of earlier frames.

        Faces from about a tenth of the frame are found. If there are none, a `thorough` search takes several times as
        long: it finds faces from about a twentieth, in overlapping tiles, and faces that the frame cuts off.
        """
        height, width = frame.shape[:2]
        whole = np.array([0, 0, width, height])
        faces = []
        with _silence():
            rough_meshes = _meshes(self._search, frame, whole)  # precise enough only for the places
            self._add_faces(faces, frame, [*map(extent, rough_meshes), *self._places(frame, whole)])
            if thorough and not faces:
                for tile in _tiles(width, height):
                    self._add_faces(faces, frame, self._places(frame, tile))
        if thorough and not faces:  # a face that the frame cuts off is found only with a border around the frame
            border = int(BORDER * max(width, height))
            framed = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_CONSTANT)
            return [face - border for face in self.detect(framed, thorough=False)]
        faces.sort(key=lambda face: sides(extent(face)).prod(), reverse=True)
        return faces[:MAX_FACES]

    def follow(self, frame: ndarray, box: ndarray, alone: bool = True) -> ndarray | None:
        """The mesh of the face that was at `box` (4,) in the previous frame, or of another one near it, or None.

        Frames must come in order; call `forget` before a new clip. Without `alone` the window is narrow, to exclude
        other faces.
        """
        needed = _around(box, KEEP_WINDOW, frame)
        is_inside = (needed[:2] >= self._window[:2]).all() and (needed[2:] <= self._window[2:]).all()
        if not is_inside or not 1 / KEEP_SCALE < sides(box).max() / self._side < KEEP_SCALE:
            self._cut_window(frame, box, WINDOW if alone else NARROW_WINDOW)
        part = (frame, self._window, self._shrink)
        faces = _meshes(self._track, *part) or _meshes(self._search, *part)
        return min(faces, key=lambda face: np.linalg.norm(centre(extent(face)) - centre(box)), default=None)

    def forget(self) -> None:
        """Forgets the followed face: the next `follow` depends on no earlier frame."""
        self._window = np.zeros(4, int)  # contains no face, so that the next `follow` cuts a new one
        self._side = 1.0  # of the face box for which the window was cut
        self._shrink = 1

    def _cut_window(self, frame: ndarray, box: ndarray, zoom: float) -> None:
        self._side = float(sides(box).max())
        self._shrink = max(1, int(sides(box).min()) // ENOUGH_PIXELS)
        window = _around(box, zoom, frame)
        window[2:] -= sides(window) % self._shrink  # so that only whole blocks are averaged
        self._window = window
        with _silence():
            self._track.reset()
            _meshes(self._track, frame, window, self._shrink)  # the next look, guided by this one, is steadier

    def _places(self, frame: ndarray, tile: ndarray) -> list[ndarray]:
        """Boxes (4,), in pixels of the frame, of the faces that the long-range detector finds in a tile."""
        boxes = []
        for detection in self._long_range.process(_cut(frame, tile)).detections or []:
            place = detection.location_data.relative_bounding_box
            low = (place.xmin, place.ymin)
            high = (place.xmin + place.width, place.ymin + place.height)
            boxes.append(to_frame(np.array([low, high]), tile).ravel())
        return boxes

    def _add_faces(self, faces: list[ndarray], frame: ndarray, boxes: list[ndarray]) -> None:
        """Runs the mesh network near each box and adds the faces that it confirms, unless they are known."""
        for box in boxes:
            window = _around(box, NARROW_WINDOW, frame)
            if _is_known(centre(box), faces) or sides(window).min() < 2:
                continue
            for face in _meshes(self._search, frame, window):
                middle = centre(extent(face))
                if _is_within(middle, box) and not _is_known(middle, faces):
                    faces.append(face)

    def covers(self, frame: ndarray, box: ndarray, lips: ndarray) -> bool:
        """Whether a hand covers one of the lip landmarks (40, 2) of the face at `box` (4,)."""
        if self._hands is None:
            return False
        window = _around(box, HAND_WINDOW, frame)
        picture = _cut(frame, window, max(1, int(sides(window).max()) // HAND_PIXELS))
        with _silence():
            hands = self._hands.process(picture).multi_hand_landmarks or []
        for hand in hands:
            hull = cv2.convexHull(_points(hand, window))
            if any(cv2.pointPolygonTest(hull, (float(x), float(y)), measureDist=False) >= 0 for x, y in lips):
                return True
        return False


def _is_within(point: ndarray, box: ndarray) -> bool:
    return bool(np.all((point > box[:2]) & (point < box[2:])))


def _is_known(point: ndarray, faces: Iterable[ndarray]) -> bool:
    return any(_is_within(point, extent(face)) for face in faces)


def _meshes(network: Any, frame: ndarray, window: ndarray, shrink: int = 1) -> list[ndarray]:
    """The meshes (478, 2), in pixels of the frame, that a network finds in a window (4,) of the frame."""
    faces = network.process(_cut(frame, window, shrink)).multi_face_landmarks or []
    return [_points(face, window) for face in faces]


def _points(landmarks: Any, window: ndarray) -> ndarray:
    """Converts MediaPipe's landmarks in a window (4,) of the frame to pixels of the frame: (n, 2)."""
    points = [(point.x, point.y) for point in landmarks.landmark]  # in [0, 1]
    return to_frame(np.array(points, np.float32), window)


def _around(box: ndarray, zoom: float, frame: ndarray) -> ndarray:
    """(4,) int: a square of `zoom` times the box's longer side around its centre, clipped to the frame."""
    half = zoom * sides(box).max() / 2
    low = np.floor(centre(box) - half)
    high = np.ceil(centre(box) + half)
    height, width = frame.shape[:2]
    return np.clip(np.concatenate([low, high]), 0, [width, height] * 2).astype(int)


def _tiles(width: int, height: int) -> Iterator[ndarray]:
    """Squares (4,) that cover the frame, each overlapping the next by half; none if faces would be too small to use."""
    if min(width, height) < SMALLEST_TILED:
        return
    side = max(int(TILES * min(width, height)), max(width, height) // 4)
    step = side // 2
    for y in range(0, height - step, step):
        for x in range(0, width - step, step):
            yield np.array([x, y, min(x + side, width), min(y + side, height)])


def _cut(frame: ndarray, window: ndarray, shrink: int = 1) -> ndarray:
    x0, y0, x1, y1 = map(int, window)
    size = ((x1 - x0) // shrink, (y1 - y0) // shrink)
    return cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps messages of MediaPipe's C++ libraries off stderr, because they cannot be switched off."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
