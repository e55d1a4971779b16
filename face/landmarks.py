"""The table of face landmarks: which points of MediaPipe's 478-point face mesh are used, their order and their edges.

131 points: the pose prior (74: everything that speech does not move), the jaw (17) and the lip (40). "Right" and "left"
are the person's own; every polyline runs from the person's right to the left or around a closed ring.
"""

import zlib
from itertools import pairwise

import numpy as np
from numpy import ndarray

_RIGHT_CHEEK = (162, 127, 234, 93)  # downwards
_LEFT_CHEEK = (323, 454, 356, 389)  # upwards
_RIGHT_BROW_TOP = (70, 63, 105, 66, 107)
_RIGHT_BROW_BOTTOM = (55, 65, 52, 53, 46)  # back to the right
_LEFT_BROW_TOP = (336, 296, 334, 293, 300)
_LEFT_BROW_BOTTOM = (276, 283, 282, 295, 285)  # back to the right
_NOSE_BRIDGE = (168, 6, 197, 195, 5)
_NOSE_BASE = (48, 115, 220, 45, 4, 275, 440, 344, 278)
_RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)  # ring from the outer corner
_LEFT_EYE = (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382)  # from the inner corner
_OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)  # ring
_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)  # ring

POSE = (
    *(_RIGHT_CHEEK + _LEFT_CHEEK),
    *(_RIGHT_BROW_TOP + _RIGHT_BROW_BOTTOM + _LEFT_BROW_TOP + _LEFT_BROW_BOTTOM),
    *(_NOSE_BRIDGE + _NOSE_BASE),
    *(_RIGHT_EYE + _LEFT_EYE),
)
JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
_OUTLINE = _RIGHT_CHEEK + JAW + _LEFT_CHEEK
LIP = _OUTER_LIP + _INNER_LIP
FULL = POSE + JAW + LIP

NUM_POSE = len(POSE)
NUM_JAW = len(JAW)
NUM_LIP = len(LIP)
NUM_FULL = len(FULL)
POSE_SLICE = slice(0, NUM_POSE)
JAW_SLICE = slice(NUM_POSE, NUM_POSE + NUM_JAW)
LIP_SLICE = slice(NUM_POSE + NUM_JAW, NUM_FULL)
CONTENT = slice(NUM_POSE, NUM_FULL)  # jaw and lip: what speech moves

_POSITION = {mesh_index: position for position, mesh_index in enumerate(FULL)}


def _positions(*mesh_indices: int) -> ndarray:
    """Positions of mesh indices in the order of FULL."""
    return np.array([_POSITION[i] for i in mesh_indices])


def _mirrored(ring: tuple[int, ...]) -> tuple[int, ...]:
    """A ring that starts at its other corner and runs in the other direction."""
    half = len(ring) // 2
    return ring[half::-1] + ring[:half:-1]


def _flip() -> ndarray:
    """For every point, the position of the point that takes its place in a mirrored face."""
    images = {}
    for points, mirrored in (
        (_OUTLINE, _OUTLINE[::-1]),
        (_NOSE_BASE, _NOSE_BASE[::-1]),
        (_RIGHT_BROW_TOP, _LEFT_BROW_TOP[::-1]),
        (_RIGHT_BROW_BOTTOM, _LEFT_BROW_BOTTOM[::-1]),
        (_RIGHT_EYE, _mirrored(_LEFT_EYE)),
        (_OUTER_LIP, _mirrored(_OUTER_LIP)),
        (_INNER_LIP, _mirrored(_INNER_LIP)),
    ):
        images |= zip(points, mirrored, strict=True)
        images |= zip(mirrored, points, strict=True)
    return _positions(*(images.get(i, i) for i in FULL))  # the bridge of the nose is its own mirror image


_POLYLINES = (
    _OUTLINE, _RIGHT_BROW_TOP, _RIGHT_BROW_BOTTOM, _LEFT_BROW_TOP, _LEFT_BROW_BOTTOM,
    (*_NOSE_BRIDGE, 4), _NOSE_BASE,
    *((*ring, ring[0]) for ring in (_RIGHT_EYE, _LEFT_EYE, _OUTER_LIP, _INNER_LIP)),
)  # fmt: skip
EDGES = np.array([_positions(*ends) for line in _POLYLINES for ends in pairwise(line)])  # (125, 2)
FLIP = _flip()  # (131,): flipped[k] = (1 - x, y) of original[FLIP[k]]
OVAL = _positions(*_OUTLINE, *_LEFT_BROW_TOP[::-1], *_RIGHT_BROW_TOP[::-1])  # closed contour

# Pairs of points on the upper and the lower lip, one below the other: (9, 2) between the corners, (1, 2) in the middle.
OUTER_LIPS, INNER_LIPS = (
    np.stack([_positions(*ring[1:10]), _positions(*ring[:10:-1])], axis=1) for ring in (_OUTER_LIP, _INNER_LIP)
)
MIDDLE_LIPS = _positions(0, 17)[None]  # of the outer contour
MOUTH_CORNERS = _positions(61, 291)  # right, left
EYES = (_positions(*_RIGHT_EYE), _positions(*_LEFT_EYE))  # (16,) each
NOSE_TIP = _POSITION[4]


def with_content(landmarks: ndarray, content: ndarray) -> ndarray:
    """Faces (F, 131, 2) with their jaws and lips replaced by `content` (F, 57, 2)."""
    result = np.array(landmarks, dtype=np.float32)
    result[:, CONTENT] = content
    return result


def settings() -> dict[str, str]:
    """Fingerprint of this table, for caches and weights: the points, their order and their edges."""
    table = np.append(FULL, EDGES).astype("<i4")
    return {"landmarks.table": f"{zlib.crc32(table.tobytes()):08x}"}
