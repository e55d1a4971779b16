"""The clip cache on disk: what preprocessing writes, and trainers and evaluation read.

A clip is two files, without pickle:
  <name>.faces        the face crops, each a JPEG, one after the other
  <name>.safetensors  arrays by frame, the mel and, as JSON in the metadata, all else; written last, so it marks the end
The mel is stored column by column, so that the window of a frame is in one place and long sound is never held whole.
Frames without a face have their place in every array (so the sound stays aligned) and no bytes in `.faces`.
"""

import contextlib
import functools
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from datasets.windows import longest_run
from face import fingerprint
from face.crop import SIZE, to_crop
from media.audio import N_MELS
from runtime.command_line import UserError

FACES, ARRAYS, UNFINISHED = ".faces", ".safetensors", ".part"
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
AGAIN = "remove it and run the preprocessing again"
OPEN_CLIPS = 256  # mapped at once in a process: two file handles each
_DTYPES = {"F32": np.float32, "I32": np.int32, "I64": np.int64, "BOOL": np.bool_}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class ClipWriter(contextlib.AbstractContextManager["ClipWriter"]):
    """Writes one clip, crop by crop, and leaves either both files or (after an exception) none of them."""

    def __init__(self, root: Path, name: str) -> None:
        self.name, self.faces, self.arrays = name, root / (name + FACES), root / (name + ARRAYS)
        self.offsets = [0]
        self.faces.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(f"{self.faces}{UNFINISHED}", "wb")  # noqa: SIM115 (closed by __exit__)

    def add(self, face: np.ndarray | None) -> None:
        """Appends the next frame's crop, (S, S, 3) uint8 RGB, or None for a frame without a face."""
        if face is not None:
            self._file.write(cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), JPEG)[1].tobytes())
        self.offsets.append(self._file.tell())

    def finish(
        self, landmarks_in_frame: np.ndarray, boxes: np.ndarray, found: np.ndarray, mel: IO[bytes], metadata: dict
    ) -> None:
        """Writes the arrays of all frames (shapes: `Clip`) and the metadata, which must hold `settings`.

        `mel` is an open file of the columns, 80 float32 each: nothing as long as the clip is copied in memory.
        """
        counts = {"num_frames": len(found), "num_found": int(found.sum()), "longest_run": longest_run(found)}
        arrays = {
            "offsets": np.array(self.offsets, np.int64),
            "landmarks_in_frame": np.ascontiguousarray(landmarks_in_frame, np.float32),
            "boxes": np.asarray(boxes, np.int32),
            "found": np.asarray(found, np.bool_),
        }
        end = mel.seek(0, os.SEEK_END)
        header: dict[str, Any] = {
            "__metadata__": {"clip": json.dumps({**metadata, "name": self.name, **counts}, sort_keys=True)},
            "mel_columns": {"dtype": "F32", "shape": [end // (4 * N_MELS), N_MELS], "data_offsets": [0, end]},
        }
        for key, array in arrays.items():
            begin, end = end, end + array.nbytes
            header[key] = {"dtype": _NAMES[array.dtype.type], "shape": array.shape, "data_offsets": [begin, end]}
        packed = json.dumps(header).encode()
        packed += b" " * (-len(packed) % 8)  # safetensors' alignment
        with self._file, open(f"{self.arrays}{UNFINISHED}", "wb") as file:
            file.write(len(packed).to_bytes(8, "little") + packed)
            mel.seek(0)
            shutil.copyfileobj(mel, file)
            for array in arrays.values():
                file.write(array.data)
            for written in (self._file, file):  # they outlast a power cut, and the disk has room for both
                written.flush()
                os.fsync(written.fileno())
        for path in (self.faces, self.arrays):
            os.replace(f"{path}{UNFINISHED}", path)
        _mapped.cache_clear()  # another clip may have been open under this name

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # a full disk complains again on closing
            self._file.close()
        for path in (self.faces, self.arrays):
            Path(f"{path}{UNFINISHED}").unlink(missing_ok=True)


def is_whole(root: Path, name: str) -> bool:
    """Whether a clip of that name was finished."""
    return (root / (name + ARRAYS)).exists() and (root / (name + FACES)).exists()


def _bytes(path: Path) -> np.ndarray:
    """A file, mapped, read-only. `np.memmap` would resolve its whole path first, which takes as long as the rest."""
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


@functools.lru_cache(maxsize=OPEN_CLIPS)
def _mapped(root: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays (read-only, mapped from disk) and metadata of a clip. `faces` holds the bytes of all crops."""
    path = root / (name + ARRAYS)
    try:
        data = _bytes(path)
        start = 8 + int(data[:8].view("<u8")[0])
        header = json.loads(data[8:start].tobytes())
        about = json.loads(header.pop("__metadata__")["clip"])
        arrays = {
            key: np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], data, start + entry["data_offsets"][0])
            for key, entry in header.items()
        }
        arrays["mel"] = arrays.pop("mel_columns").T
        arrays["faces"] = _bytes(root / (name + FACES))
        if len(arrays["faces"]) != arrays["offsets"][-1]:
            raise ValueError(f"{name}{FACES} has {len(arrays['faces'])} bytes, not {arrays['offsets'][-1]}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is not a whole clip ({error}); {AGAIN}") from error
    return arrays, about


@dataclass(frozen=True)
class Clip:
    """One clip of the cache. Cheap to keep and to send to a worker: arrays are mapped from disk when asked for."""

    root: Path
    name: str  # path below the root, without suffix
    num_frames: int  # F, at 25 fps
    num_found: int  # frames with a face
    longest_run: int  # of frames with a face

    @property
    def landmarks_in_frame(self) -> np.ndarray:
        """(F, 131, 2) float32, pixels of the source frame; NaN where no face was found."""
        return _mapped(self.root, self.name)[0]["landmarks_in_frame"]

    @property
    def boxes(self) -> np.ndarray:
        """(F, 4) int32 x0, y0, x1, y1 in pixels of the source frame."""
        return _mapped(self.root, self.name)[0]["boxes"]

    @property
    def found(self) -> np.ndarray:
        """(F,) bool."""
        return _mapped(self.root, self.name)[0]["found"]

    @property
    def mel(self) -> np.ndarray:
        """(80, C) float32, see media.audio."""
        return _mapped(self.root, self.name)[0]["mel"]

    @property
    def landmarks_in_crop(self) -> np.ndarray:
        """(F, 131, 2) float32, [0, 1] inside the box; computed anew at every call."""
        return self.crop_landmarks(np.arange(self.num_frames))

    def crop_landmarks(self, frames: np.ndarray) -> np.ndarray:
        """Landmarks of some frames (n,) in crop coordinates: (n, 131, 2) float32."""
        return to_crop(self.landmarks_in_frame[frames], self.boxes[frames])

    def face(self, frame: int) -> np.ndarray:
        """The face crop of a frame that has a face: (S, S, 3) uint8 RGB."""
        arrays = _mapped(self.root, self.name)[0]
        start, end = arrays["offsets"][frame : frame + 2]
        if start == end:
            raise IndexError(f"frame {frame} of {self.name} has no face")
        face = cv2.imdecode(arrays["faces"][start:end], cv2.IMREAD_COLOR_RGB)
        if face is None:
            raise UserError(f"{self.root / self.name}{FACES}: the picture of frame {frame} is damaged; {AGAIN}")
        return face

    @property
    def num_bytes(self) -> int:
        """Of all face crops on disk."""
        return int(_mapped(self.root, self.name)[0]["offsets"][-1])

    @property
    def metadata(self) -> dict[str, Any]:
        """What else was recorded: settings, source, frame_size (width, height), measures, notes."""
        return _mapped(self.root, self.name)[1]


def open_clip(root: Path, name: str) -> Clip:
    """Opens one clip.

    Raises:
        UserError: there is none of that name, or its files are damaged.
    """
    about = _mapped(root, name)[1]
    return Clip(root, name, *(about[key] for key in ("num_frames", "num_found", "longest_run")))


class ClipCache:
    """All clips below a folder, of crops of `size` pixels; None: of the first clip's, as landmarks fit any.

    Raises:
        UserError: the folder is missing or holds no clip.
    """

    def __init__(self, root: Path | str, size: int | None = SIZE) -> None:
        self.root = Path(root)
        files = self.root.rglob("*" + ARRAYS) if self.root.is_dir() else ()
        self.names = sorted(file.relative_to(self.root).as_posix().removesuffix(ARRAYS) for file in files)
        if not self.names:
            raise UserError(f"--cache: there is no clip in {self.root}; make some with python -m preprocess")
        if size is None:
            size = int(open_clip(self.root, self.names[0]).metadata["settings"]["crop.size"])
        self.settings = fingerprint.current(size)

    def open(self, name: str) -> Clip:
        """Opens a clip and compares the settings that it was made with with those in force (UserError)."""
        clip = open_clip(self.root, name)
        fingerprint.check(clip.metadata["settings"], self.settings, f"clip {name} in {self.root}")
        return clip

    def __iter__(self) -> Iterator[Clip]:
        return map(self.open, self.names)
