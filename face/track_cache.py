"""Face tracks in files (26 kB a second), so that dubbing the same video again needs no tracking."""

import hashlib
import io
from pathlib import Path

import numpy as np

from face.tracking import FaceTrack
from runtime.command_line import UserError, write_whole, writing

VERSION = 3  # of the tracker; raise it when the tracker's results change


def track_path(folder: Path, video: Path, fps: float, settings: str) -> Path:
    """The file for the track of a video; its name is a hash of the video's content and the settings.

    Creates the folder. Raises UserError if this fails.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with video.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{VERSION} {fps} {settings}".encode())
    return folder / f"{digest.hexdigest()[:32]}.npz"


def save_track(path: Path, track: FaceTrack, complete: bool) -> None:
    """Writes a track; `complete`: whether it covers the whole video. Raises UserError if writing fails."""
    arrays = io.BytesIO()
    np.savez_compressed(
        arrays,
        landmarks_in_frame=track.landmarks_in_frame,
        frame_size=track.frame_size,
        several=track.num_faces,  # as earlier versions called it
        shots=track.shots,
        complete=complete,
    )
    write_whole(path, arrays.getvalue())


def load_track(path: Path, num_frames: int | None) -> FaceTrack | None:
    """Reads the track of a video's first `num_frames` (None: all); None if the file is missing or holds fewer.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise UserError(f"{path} is damaged; delete it") from error
    is_enough = num_frames is not None and len(arrays["shots"]) >= num_frames
    if not is_enough and not arrays["complete"]:
        return None
    width, height = arrays["frame_size"].tolist()
    return FaceTrack(
        arrays["landmarks_in_frame"][:num_frames],
        (width, height),
        arrays["several"][:num_frames],
        arrays["shots"][:num_frames],
    )
