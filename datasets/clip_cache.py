"""The clip cache on disk: preprocessing writes it, training and evaluation read it.

A clip is two files, without pickle:
  <name>.faces        the face crops, concatenated JPEG files
  <name>.safetensors  arrays by frame, the mel spectrogram and, as JSON in the metadata, everything else. It is written
                      last: a clip that has this file is complete.
The mel spectrogram is stored column by column, so that the window of a frame is contiguous. Frames without a face have
an entry in every array (so that the sound stays aligned) but no bytes in `.faces`.
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from datasets.windows import longest_run
from face import fingerprint
from face.crop import SIZE, to_crop
from face.tracking import FaceTrack
from media.files import files_below
from runtime.command_line import UserError

FACES = ".faces"
ARRAYS = ".safetensors"
UNFINISHED = ".part"
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
REMEDY = "remove it and run the preprocessing again"
OPEN_CLIPS = 256  # clips that a process keeps mapped


class ClipWriter(contextlib.AbstractContextManager["ClipWriter"]):
    """Writes one clip crop by crop; leaves either both files or, after an exception, neither."""

    def __init__(self, root: Path, name: str):
        self.faces = root / (name + FACES)
        self.arrays = root / (name + ARRAYS)
        self.offsets = [0]
        self.faces.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(f"{self.faces}{UNFINISHED}", "wb")  # noqa: SIM115 (closed by __exit__)

    def add(self, face: ndarray | None) -> None:
        """Appends the next frame's crop, (S, S, 3) uint8 RGB, or None for a frame without a face."""
        if face is not None:
            bgr = cv2.cvtColor(face, cv2.COLOR_RGB2BGR)
            _, encoded = cv2.imencode(".jpg", bgr, JPEG)
            self._file.write(encoded.data)
        self.offsets.append(self._file.tell())

    def finish(self, track: FaceTrack, mel: ndarray, metadata: dict[str, Any]) -> None:
        """Writes the arrays of all frames (shapes: see `Clip`) and the metadata, which must contain `settings`."""
        arrays = {
            "offsets": np.array(self.offsets, np.int64),
            "landmarks_in_frame": track.landmarks_in_frame,
            "boxes": track.boxes,
            "found": track.found,
            "mel_columns": np.ascontiguousarray(mel.T),  # (C, 80)
        }
        metadata = metadata | {
            "frame_size": track.frame_size,
            "num_frames": len(track.found),
            "num_found": int(track.found.sum()),
            "longest_run": longest_run(track.found),
        }
        content = save(arrays, {"clip": json.dumps(metadata, sort_keys=True)})
        Path(f"{self.arrays}{UNFINISHED}").write_bytes(content)
        self._file.close()
        for path in (self.faces, self.arrays):
            os.replace(f"{path}{UNFINISHED}", path)
        _arrays.cache_clear()  # an earlier clip of this name may be open

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # closing fails again on a full disk
            self._file.close()
        for path in (self.faces, self.arrays):
            Path(f"{path}{UNFINISHED}").unlink(missing_ok=True)


def read_metadata(root: Path, name: str) -> dict[str, Any]:
    """Reads a clip's metadata: settings, source, frame_size (width, height), measures, notes, counts.

    Raises:
        UserError: there is no clip of that name, or its files are damaged.
    """
    path = root / (name + ARRAYS)
    try:
        with safe_open(path, "np") as file:
            metadata = json.loads(file.metadata()["clip"])
            (size,) = file.get_slice("offsets")[metadata["num_frames"] :]
        faces_size = (root / (name + FACES)).stat().st_size
        if faces_size != size:
            raise ValueError(f"{name}{FACES} has {faces_size} bytes, not {size}")
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is not a complete clip ({error}); {REMEDY}") from error
    return metadata


@functools.lru_cache(maxsize=OPEN_CLIPS)
def _arrays(clip: "Clip") -> dict[str, ndarray]:
    """The arrays of a clip by name, read-only, mapped from disk; `faces` holds the bytes of all crops."""
    with safe_open(clip.root / (clip.name + ARRAYS), "pt") as file:  # with "np" the arrays would be copied into memory
        arrays = {key: file.get_tensor(key).numpy() for key in file.keys()}  # noqa: SIM118
    arrays["faces"] = np.memmap(clip.root / (clip.name + FACES), np.uint8, "r")
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


@dataclass(frozen=True)
class Clip:
    """One clip of the cache. It is cheap to keep and to send to a worker: its arrays are mapped from disk on access."""

    root: Path
    name: str
    """Path below the root, without suffix."""
    num_frames: int
    """F, at 25 fps."""
    num_found: int
    """Frames with a face."""
    longest_run: int
    """Length of the longest run of frames with a face."""

    @property
    def landmarks_in_frame(self) -> ndarray:
        """(F, 131, 2) float32, pixels of the source frame; NaN where no face was found."""
        return _arrays(self)["landmarks_in_frame"]

    @property
    def boxes(self) -> ndarray:
        """(F, 4) int32 x0, y0, x1, y1 in pixels of the source frame."""
        return _arrays(self)["boxes"]

    @property
    def found(self) -> ndarray:
        """(F,) bool."""
        return _arrays(self)["found"]

    @property
    def mel(self) -> ndarray:
        """(80, C) float32, see media.audio."""
        return _arrays(self)["mel_columns"].T

    def crop_landmarks(self, frames: ndarray) -> ndarray:
        """Landmarks of some frames (n,) in crop coordinates, [0, 1] inside the box: (n, 131, 2) float32."""
        return to_crop(self.landmarks_in_frame[frames], self.boxes[frames])

    def face(self, frame: int) -> ndarray:
        """The face crop of a frame with a face: (S, S, 3) uint8 RGB.

        Raises:
            UserError: the picture is damaged.
        """
        start, end = _arrays(self)["offsets"][frame : frame + 2]
        face = cv2.imdecode(_arrays(self)["faces"][start:end], cv2.IMREAD_COLOR_RGB)
        if face is None:
            raise UserError(f"{self.root / self.name}{FACES}: the picture of frame {frame} is damaged; {REMEDY}")
        return face


class ClipCache:
    """All clips below a folder.

    Args:
        root: the folder.
        size: side of the face crops in pixels, required of every clip; None takes the first clip's.

    Raises:
        UserError: the folder is missing or holds no clip.
    """

    def __init__(self, root: Path | str, size: int | None = SIZE):
        self.root = Path(root)
        files = [file.relative_to(self.root).as_posix() for file in files_below(self.root)]
        self.names = sorted(file.removesuffix(ARRAYS) for file in files if file.endswith(ARRAYS))
        if not self.names:
            raise UserError(f"there is no clip in {self.root}; make some with python -m preprocess")
        first = read_metadata(self.root, self.names[0])
        self.settings = fingerprint.current(size or first["settings"]["crop.size"])

    def open(self, name: str) -> Clip:
        """Opens a clip; raises UserError if it is damaged or was made with other settings."""
        metadata = read_metadata(self.root, name)
        fingerprint.check(metadata["settings"], self.settings, f"clip {name} in {self.root}")
        return Clip(self.root, name, metadata["num_frames"], metadata["num_found"], metadata["longest_run"])

    def __iter__(self) -> Iterator[Clip]:
        return map(self.open, self.names)
