"""Chooses which clips are scored, and with whose sound: a reproducible version of the paper's section 4.1.

The paper samples 45 clips of LRS2's test list and 45 of LRS3 without saying which. Here the sorted names of the list
are permuted by `SEED` and the first `COUNT` are taken. In dubbing each clip gets the sound of another.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from media.audio import FPS, SAMPLE_RATE
from media.files import find_videos
from media.video import Video, read_audio, sound_file
from runtime.command_line import UserError, at_least_one

SEED = 2023
COUNT = 45


def choose_clips(names: Iterable[str], count: int = COUNT) -> list[str]:
    """Chooses `count` of the names by the rule above, or all if there are fewer, and sorts them."""
    at_least_one(count=count)
    permutation = np.random.default_rng(SEED).permutation(sorted(names))
    return sorted(permutation[:count].tolist())


def exchange_sounds(clips: list[str]) -> dict[str, str]:
    """Maps each clip to the one whose sound it is dubbed with: the next in a cyclic order given by `SEED`."""
    if len(clips) < 2:
        raise UserError("dubbing needs at least two clips, because each takes the sound of another; choose more")
    order = np.random.default_rng(SEED).permutation(clips).tolist()
    sounds = dict(zip(order, order[1:] + order[:1], strict=True))
    return {clip: sounds[clip] for clip in clips}


def read_sound(video: Path, num_frames: int | None) -> np.ndarray:
    """Reads the sound (S,) of a video at 16 kHz, cut or padded to a number of frames if one is given."""
    wav = read_audio(sound_file(Video(video)))
    if num_frames is not None:
        length = num_frames * SAMPLE_RATE // FPS
        wav = np.pad(wav, (0, length))[:length]
    return wav


def parse_named(values: tuple[str, ...]) -> dict[str, Path]:
    """Parses NAME=PATH words into name -> path. Raises UserError if an = is missing, or a name is used twice."""
    paths: dict[str, Path] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise UserError(f"{value}: write NAME=FOLDER, or NAME=VIDEO if one video is meant")
        if name in paths:
            raise UserError(f"two are named {name}; each needs a name of its own")
        paths[name] = Path(path)
    return paths


def videos_by_name(folder: Path) -> dict[str, Path]:
    """Maps clip names (paths below the folder, without suffix) to the videos of a folder.

    Raises UserError if there is no video, or two share a name.
    """
    videos: dict[str, Path] = {}
    for name, path in find_videos(folder):
        if name in videos:
            raise UserError(f"{path} has the same name as {videos[name].name}; leave one of them in the folder")
        videos[name] = path
    return videos
