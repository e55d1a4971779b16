"""Follows one person through a clip."""

import re
from array import array
from collections.abc import Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy import ndarray

from face.crop import SAME_FACE, box_around, centre, extent, overlap, sides, smooth_boxes
from face.detector import FaceDetector
from face.landmarks import FULL, LIP_SLICE, NUM_FULL
from runtime.command_line import UserError

SURVEY = 25  # frames between two counts of all faces
SEARCH = 5  # frames between two thorough searches while no face is found
HAND_CHECK = 6  # frames between two searches for a hand in front of the mouth
# The shot has changed if neighbouring frames, or forehead and eyes in them (a hand may cover the mouth), are less
# similar than this. In 56 clips the eyes of neighbouring frames give 0.71 or more, even with a hand painted over the
# mouth; another person in the same place gives less than 0.65 in 81 % of all pairs.
SAME_SHOT = 0.5
SAME_PERSON = 0.65
EYES = 0.4  # share of the face box from the top
COARSE = 8  # pixels, side of the pictures that are compared; so coarse that movement hardly matters
LOST = 25  # frames after which a lost person is given up, and `pick` applies again

Pick = Literal["largest"] | int | tuple[float, float]  # an int counts from the left (-1: the last); a tuple is a point


@dataclass
class FaceTrack:
    """One person's face in every frame of a clip.

    Attributes:
        landmarks_in_frame: (F, 131, 2) f32 pixels, NaN where the face was not found.
        found: (F,) bool.
        boxes: (F, 4) int32 x0, y0, x1, y1, smoothed; zeros where not found.
        frame_size: width, height.
        num_faces: (F,) int, number of faces at the last count, including the tracked one.
        shots: (F,) int, number of each frame's shot. The shot changes where the whole picture or the face looks
            different, or where the face is in another place and may be another person's. A shot that comes back keeps
            its number.
    """

    landmarks_in_frame: ndarray
    frame_size: tuple[int, int]
    num_faces: ndarray
    shots: ndarray
    found: ndarray = field(init=False)
    boxes: ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.found = np.isfinite(self.landmarks_in_frame).all(axis=(1, 2))
        boxes = box_around(self.landmarks_in_frame, self.frame_size)
        self.boxes = smooth_boxes(boxes, self.found, self.shots)

    @property
    def cuts(self) -> ndarray:
        """(F,) bool, whether a frame is the first one after a cut."""
        return np.diff(self.shots, prepend=self.shots[:1]) != 0


class _View(NamedTuple):
    """The structure of a frame and, if it shows the face, the face's box and the structure of forehead and eyes."""

    frame: ndarray
    box: ndarray | None = None
    eyes: ndarray | None = None


class Tracker:
    """Follows one person through the frames of a clip, one by one; keeps landmarks, no frames.

    Args:
        pick: whom to follow if there are several people: see `parse_pick`.
        detector: finds the faces; only one tracker may use it at a time. If it finds hands, a frame with a hand in
            front of the mouth counts as a frame without the face.

    Raises:
        UserError: `pick` names no face.
    """

    def __init__(self, pick: str, detector: FaceDetector):
        self._pick: Pick = parse_pick(pick)
        self._covered: list[int] = []  # frames with a hand in front of the mouth
        self._detector = detector
        self._detector.forget()
        self._landmarks = array("f")  # takes the most memory: four bytes a number
        self._counts: list[int] = []  # faces at the last count, per frame
        self._shots: list[int] = []
        self._views: dict[int, _View] = {}  # the last frame of each shot
        self._frame_size = (0, 0)
        self._box: ndarray | None = None  # where the tracked face was seen last
        self._missed = 0  # frames since then
        self._cut_since = False  # whether the shot has changed since then
        self._company = 0  # faces counted when it was seen; 0: it never was

    def add(self, frame: ndarray) -> None:
        """Tracks the next frame (H, W, 3) uint8 RGB.

        Raises:
            UserError: this is the first frame with a face, and no face in it is the one that `pick` names.
        """
        self._frame_size = (frame.shape[1], frame.shape[0])
        view = _View(_structure(frame))
        is_cut = bool(self._shots) and self._shot_of(frame, view) != self._shots[-1]
        if is_cut:
            self._detector.forget()
            self._cut_since = True
        mesh = self._find(frame)
        jumped = False
        landmarks = np.full((NUM_FULL, 2), np.nan, np.float32)
        self._missed += 1
        if mesh is not None:
            jumped = self._company > 0 and (self._box is None or not self._is_same(mesh, self._box))
            self._missed = 0
            self._cut_since = False
            self._company = self._counts[-1]
            landmarks = mesh[list(FULL)]
            self._box = box_around(landmarks, self._frame_size)
            view = view._replace(box=self._box, eyes=_eyes(frame, self._box))
            number = len(self._shots)
            if number % HAND_CHECK == 0 and self._detector.covers(frame, self._box, landmarks[LIP_SLICE]):
                self._covered.append(number)
        elif self._missed >= LOST:
            self._box = None
        self._landmarks.frombytes(landmarks.tobytes())
        shot = len(self._views) if jumped and not is_cut else self._shot_of(frame, view)
        self._views[shot] = view
        self._shots.append(shot)

    def recent(self, count: int) -> FaceTrack:
        """The track of the last `count` frames; later frames may still change its last `SMOOTHING` boxes."""
        landmarks = np.frombuffer(self._landmarks, np.float32).reshape(-1, NUM_FULL, 2)[-count:].copy()
        return self._track(landmarks)

    def finish(self) -> FaceTrack:
        """The track of all frames; call it after the last frame."""
        landmarks = np.frombuffer(self._landmarks, np.float32).reshape(-1, NUM_FULL, 2)
        covered = np.zeros(len(landmarks), bool)
        for number in self._covered:
            covered[max(0, number - HAND_CHECK + 1) : number + HAND_CHECK] = True
        if np.isfinite(landmarks[~covered, 0]).any():  # else a hand, or what looks like one, is there all the time
            landmarks[covered] = np.nan
        return self._track(landmarks)

    def _track(self, landmarks: ndarray) -> FaceTrack:
        num_faces = np.array(self._counts[-len(landmarks) :], int)
        shots = np.array(self._shots[-len(landmarks) :], int)
        return FaceTrack(landmarks, self._frame_size, num_faces, shots)

    def _find(self, frame: ndarray) -> ndarray | None:
        """The mesh of the tracked person, if seen."""
        mesh = None
        if self._box is not None:
            mesh = self._follow(frame, self._box, self._company)
        if mesh is not None and len(self._counts) % SURVEY:
            self._counts.append(max(self._counts[-1], 1))
            return mesh
        faces = self._detector.detect(frame, thorough=self._missed % SEARCH == 0)
        if mesh is None:
            self._detector.forget()
            mesh = self._choose(faces)
            if mesh is not None:
                followed = self._follow(frame, self._visible(mesh), len(faces))  # the same network as in later frames
                mesh = mesh if followed is None else followed
        self._counts.append(len(faces) if mesh is None else max(len(faces), 1))
        return mesh

    def _follow(self, frame: ndarray, box: ndarray, company: int) -> ndarray | None:
        """The mesh of the face that was at `box`; None if there is none or only another person's."""
        mesh = self._detector.follow(frame, box, alone=company < 2)
        return mesh if mesh is not None and self._is_same(mesh, box) else None

    def _is_same(self, mesh: ndarray, box: ndarray) -> bool:
        """Whether a face is where the face at `box` was in the previous frame."""
        return bool(overlap(box, self._visible(mesh)) >= SAME_FACE)

    def _visible(self, mesh: ndarray) -> ndarray:
        """(4,) the extent of a face, clipped to the frame."""
        return np.clip(extent(mesh), 0, self._frame_size * 2)

    def _choose(self, faces: list[ndarray]) -> ndarray | None:
        """The tracked person among the faces; None in case of doubt."""
        if faces and self._box is not None:
            overlaps = [overlap(self._box, self._visible(face)) for face in faces]
            is_alone = len(faces) == self._company == 1  # there is and was nobody else: the camera jumped
            if is_alone or max(overlaps) >= SAME_FACE:
                return faces[np.argmax(overlaps)]
        if faces and (self._box is None or self._cut_since):
            return _picked(faces, self._pick, required=self._company == 0)
        return None

    def _shot_of(self, frame: ndarray, view: _View) -> int:
        """The shot of a view: the previous frame's, an earlier shot that it resembles, or a new one."""
        if not self._shots:
            return 0
        current = self._shots[-1]
        if _similarity(frame, view, self._views[current]) >= 0:
            return current
        similarities = [_similarity(frame, view, other) for other in self._views.values()]  # in order of shots
        return int(np.argmax(similarities)) if max(similarities) >= 0 else len(similarities)


def track_faces(frames: Iterable[ndarray], pick: str = "largest", detector: FaceDetector | None = None) -> FaceTrack:
    """Follows one person through all frames: see `Tracker`. Without `detector` it creates one, which takes a moment."""
    with nullcontext(detector) if detector else closing(FaceDetector()) as usable_detector:
        tracker = Tracker(pick, usable_detector)
        for frame in frames:
            tracker.add(frame)
        return tracker.finish()


def parse_pick(pick: str) -> Pick:
    """Parses "largest", "left", "right", a number from the left ("0" is the first) or a point "x,y" in pixels.

    Raises:
        UserError: `pick` is none of these.
    """
    text = pick.strip().lower()
    names: dict[str, Pick] = {"largest": "largest", "left": 0, "right": -1}
    if text in names:
        return names[text]
    if re.fullmatch(r"\d{1,3}", text):
        return int(text)
    point = re.fullmatch(r"(\d+(?:\.\d+)?) ?[,x] ?(\d+(?:\.\d+)?)", text)
    if point:
        return float(point[1]), float(point[2])
    raise UserError(f'"{pick}" names no face; give largest, left, right, a number from the left (0, 1, ...) or x,y')


def _picked(faces: list[ndarray], pick: Pick, required: bool) -> ndarray | None:
    """The face that `pick` names. If there is none, raises UserError if it is `required`, else returns None."""
    if pick == "largest":
        return faces[0]
    candidates = np.stack(faces)
    candidates = candidates[centre(extent(candidates))[:, 0].argsort()]  # from the left
    boxes = extent(candidates)
    centres = centre(boxes)
    if isinstance(pick, tuple):  # on the face or within half a face of it
        distances = (np.abs(centres - pick) / sides(boxes)).max(axis=1)
        candidates = candidates[(distances == distances.min()) & (distances <= 1)]
    else:
        candidates = candidates[pick:]
    if len(candidates):
        return candidates[0]
    if required:
        places = [f"{number} at {x:.0f},{y:.0f}" for number, (x, y) in enumerate(centres)]
        raise UserError(f"no face {pick} in the first frame that shows faces; there are {'; '.join(places)}")
    return None


def _structure(picture: ndarray) -> ndarray:
    """(65,) unit vector of a picture's coarse structure; the dot product of two is their similarity."""
    step = max(1, min(picture.shape[:2]) // 128)
    green = np.ascontiguousarray(picture[::step, ::step, 1])
    coarse = cv2.resize(green, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    structure = np.append(coarse - coarse.mean(), 4 * COARSE)  # the constant makes nearly flat pictures similar
    return structure / np.linalg.norm(structure)


def _eyes(frame: ndarray, box: ndarray) -> ndarray:
    x0, y0, x1, y1 = box.astype(int)
    below_eyes = y0 + int(EYES * (y1 - y0)) + 1
    return _structure(frame[y0:below_eyes, x0 : x1 + 1])


def _similarity(frame: ndarray, view: _View, other: _View) -> float:
    """Similarity of a frame to another view, minus what the same shot requires: negative at a cut.

    It is the lower one of two similarities: of the whole frames and, if both show the face, of the eyes. Because a hand
    shifts the landmarks, the eyes are also looked for where the other view has them.
    """
    similarity = float(view.frame @ other.frame) - SAME_SHOT
    if view.eyes is None or other.eyes is None or other.box is None:
        return similarity
    eyes = max(view.eyes @ other.eyes, _eyes(frame, other.box) @ other.eyes)
    return min(similarity, float(eyes) - SAME_PERSON)


def fill_gaps(found: ndarray) -> ndarray:
    """(F,) bool -> (F,) the nearest frame with a face (the earlier one in a tie): the frame itself if it has one."""
    with_face = np.flatnonzero(found)
    halfway = (with_face[:-1] + with_face[1:]) / 2
    return with_face[np.searchsorted(halfway, np.arange(len(found)))]
