"""Follows one person through a clip."""

import re
from array import array
from collections.abc import Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from face.crop import SAME_FACE, box_around, overlap, smooth_boxes
from face.detector import FaceDetector, centre, extent
from face.landmarks import FULL, NUM_FULL
from runtime.command_line import UserError

SURVEY = 25  # frames between two counts of all faces
SEARCH = 5  # frames between two thorough searches while no face is found
# Likeness of neighbouring frames, or of the faces in them, under which the shot has changed. A hand that comes before
# the face makes 0.52, a jerk of the camera 0.55; of 304 clips four go below: a toy flies past, frames are broken.
SAME_SHOT = 0.5
VIEW = 8  # side of the pictures by which they are compared: so coarse that movement hardly shows
LOST = 25  # frames after which a lost person is given up and the rule for picking one applies again

Pick = Literal["largest"] | int | tuple[float, float]  # or by number from the left (-1: the last), or at a point x, y


@dataclass
class FaceTrack:
    """One person's face in every frame of a clip.

    Attributes:
        landmarks_in_frame: (F, 131, 2) f32 pixels, NaN where the face was not found.
        found: (F,) bool.
        boxes: (F, 4) int32 x0, y0, x1, y1, smoothed; zeros where not found.
        frame_size: width, height.
        several: (F,) int, how many faces the last count saw, the followed one included.
        shots: (F,) int, the number of the shot that each frame belongs to: another where everything or the face
            looks otherwise, or the face is not where it was and may be somebody else's. A shot that comes back keeps
            its number.
    """

    landmarks_in_frame: np.ndarray
    found: np.ndarray
    boxes: np.ndarray
    frame_size: tuple[int, int]
    several: np.ndarray
    shots: np.ndarray

    @property
    def cuts(self) -> np.ndarray:
        """(F,) bool, the first frames of another shot."""
        return np.diff(self.shots, prepend=self.shots[:1]) != 0


class Tracker:
    """Takes the frames of a clip one by one; memory holds landmarks only.

    Args:
        pick: whom to follow if there are several: "largest", "left" or "right" of the picture, a number counted from
            the left ("0" is the first), or a point "x,y" of the frame in pixels.
        detector: what looks for faces; one at a time may use it.

    Raises:
        UserError: `pick` is none of these.
    """

    def __init__(self, pick: str, detector: FaceDetector) -> None:
        self._pick: Pick = parse_pick(pick)
        self._detector = detector
        self._detector.forget()
        self._landmarks = array("f")  # the most of what grows with the clip
        self._several, self._shots = [0], [0]  # of the frame before the first, too
        self._views: list[list[np.ndarray]] = []  # of each shot, its last frame and the face in it, if there is one
        self._frame_size = (0, 0)
        self._box: np.ndarray | None = None  # where the followed face was seen last
        self._missed = 0  # frames since then
        self._elsewhere = False  # whether the shot has changed since then
        self._company = 0  # faces counted while it was seen

    def add(self, frame: np.ndarray) -> None:
        """Looks at the next frame (H, W, 3) uint8 RGB.

        Raises:
            UserError: in the first frame with a face, `pick` names one that is not there.
        """
        self._frame_size = (frame.shape[1], frame.shape[0])
        view, shot, jumped = [_structure(frame)], self._shots[-1], False
        self._views = self._views or [view]
        if cut := _likeness(view, self._views[shot]) < SAME_SHOT:
            self._detector.forget()
            self._elsewhere = True
        mesh = None if self._box is None else self._follow(frame, self._box, self._company)
        several = self._several[-1]
        if mesh is None or (len(self._several) - 1) % SURVEY == 0:
            faces = self._detector.detect(frame, thorough=self._missed % SEARCH == 0)
            several = len(faces)
            if mesh is None:
                self._detector.forget()
                chosen, jumped = self._choose(faces)
                steady = None if chosen is None else self._follow(frame, extent(chosen), several)  # as in later frames
                mesh = chosen if steady is None else steady
        if mesh is None:
            self._missed += 1
            if self._missed >= LOST:
                self._box = None
            landmarks = np.full((NUM_FULL, 2), np.nan, np.float32)
        else:
            several = max(several, 1)
            self._missed, self._company, self._elsewhere = 0, several, False
            landmarks = mesh[list(FULL)]
            self._box = box_around(landmarks, self._frame_size)
            x0, y0, x1, y1 = self._box.astype(int)
            view.append(_structure(frame[y0 : y1 + 1, x0 : x1 + 1]))
        if jumped and not cut:
            shot = len(self._views)
        elif _likeness(view, self._views[shot]) < SAME_SHOT:
            likeness = [_likeness(view, known) for known in self._views]
            shot = int(np.argmax(likeness)) if max(likeness) >= SAME_SHOT else len(self._views)
        self._views[shot : shot + 1] = [view]
        self._landmarks.frombytes(landmarks.tobytes())
        self._several.append(several)
        self._shots.append(shot)

    def finish(self) -> FaceTrack:
        """Everything seen; the tracker takes no more frames."""
        landmarks = np.frombuffer(self._landmarks, np.float32).reshape(-1, NUM_FULL, 2)
        found = np.isfinite(landmarks).all(axis=(1, 2))
        boxes = box_around(landmarks, self._frame_size)
        several, shots = np.array(self._several[1:], int), np.array(self._shots[1:], int)
        return FaceTrack(landmarks, found, smooth_boxes(boxes, found, shots), self._frame_size, several, shots)

    def _follow(self, frame: np.ndarray, box: np.ndarray, company: int) -> np.ndarray | None:
        """The mesh of the face that was at `box`; None if there is none or only somebody else's."""
        mesh = self._detector.follow(frame, box, alone=company < 2)
        return mesh if mesh is not None and overlap(box, extent(mesh)) >= SAME_FACE else None

    def _choose(self, faces: list[np.ndarray]) -> tuple[np.ndarray | None, bool]:
        """The followed person among some faces, and whether that is a jump. None rather than a doubtful one."""
        if not faces:
            return None, False
        if self._box is None:
            chosen = _picked(faces, self._pick, must=self._company == 0)
            return chosen, chosen is not None and self._company > 0
        overlaps = [float(overlap(self._box, extent(face))) for face in faces]
        nearest = faces[int(np.argmax(overlaps))]
        if max(overlaps) >= SAME_FACE:
            return nearest, False
        if len(faces) == 1 and self._company == 1:  # nobody else is or was there: the camera jumped
            return nearest, True
        chosen = _picked(faces, self._pick, must=False) if self._elsewhere else None
        return chosen, chosen is not None


def track_faces(frames: Iterable[np.ndarray], pick: str = "largest", detector: FaceDetector | None = None) -> FaceTrack:
    """Follows one person through all frames: see `Tracker`. Without a detector it makes one, which takes a moment."""
    with nullcontext(detector) if detector else closing(FaceDetector()) as eyes:
        tracker = Tracker(pick, eyes)
        for frame in frames:
            tracker.add(frame)
        return tracker.finish()


def parse_pick(pick: str) -> Pick:
    """Whom to follow, from text such as "left", "2" or "640,360".

    Raises:
        UserError: it is none of the ways to name a face.
    """
    text = pick.strip().lower()
    names: dict[str, Pick] = {"largest": "largest", "left": 0, "right": -1}
    if text in names:
        return names[text]
    if re.fullmatch(r"\d{1,3}", text):
        return int(text)
    if point := re.fullmatch(r"(\d+(?:\.\d+)?) ?[,x] ?(\d+(?:\.\d+)?)", text):
        return float(point[1]), float(point[2])
    raise UserError(f"--face {pick}: not a face; give largest, left, right, a number from the left (0, 1, ...) or x,y")


def _picked(faces: list[np.ndarray], pick: Pick, must: bool) -> np.ndarray | None:
    """The face that the rule names; where there is none, a UserError if it `must` be there, else None."""
    if pick == "largest":
        return faces[0]
    faces = sorted(faces, key=lambda face: float(centre(extent(face))[0]))  # from the left
    boxes = np.stack([extent(face) for face in faces])
    if isinstance(pick, tuple):  # on the face or within half a face of it
        near = (np.abs(centre(boxes) - pick) <= boxes[:, 2:] - boxes[:, :2]).all(axis=1)
        order = np.argsort(np.linalg.norm(centre(boxes) - pick, axis=1))
        there = [faces[i] for i in order if near[i]]
    else:
        there = faces[pick:]
    if there:
        return there[0]
    if must:
        name = pick if isinstance(pick, int) else f"{pick[0]},{pick[1]}"
        places = "; ".join(f"{number}: at {x:.0f},{y:.0f}" for number, (x, y) in enumerate(centre(boxes)))
        raise UserError(f"--face {name}: not there in the first frame with a face; the faces are {places}")
    return None


def _structure(picture: np.ndarray) -> np.ndarray:
    """(65,) unit vector of a picture's coarse structure: the product of two is their likeness."""
    step = max(1, min(picture.shape[:2]) // 128)
    grey = cv2.resize(np.ascontiguousarray(picture[::step, ::step, 1]), (VIEW, VIEW), interpolation=cv2.INTER_AREA)
    structure = np.append(grey - grey.mean(), 4 * VIEW)  # the constant makes nearly flat pictures alike
    return structure / np.linalg.norm(structure)


def _likeness(view: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Of two frames or, if both show a face and that is less alike, of the faces."""
    return min(map(np.dot, view, other))


def fill_gaps(found: np.ndarray) -> np.ndarray:
    """(F,) bool -> (F,) the nearest frame with a face, for windows that reach over frames without one."""
    with_face = np.flatnonzero(found)
    halfway = (with_face[:-1] + with_face[1:]) / 2  # up to there, included, the earlier one is nearest
    return with_face[np.searchsorted(halfway, np.arange(len(found)))]
