"""Which clips are scored, with whose sound, against which files: the paper's section 4.1, made reproducible.

The paper samples 45 clips of LRS2's test list and 45 of LRS3 without saying which. Here the sorted names of the list
are permuted by `SEED` and the first `COUNT` are taken. In dubbing each clip gets the sound of another.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.splits import quoted, read_words
from media.video import SUFFIXES
from runtime.command_line import UserError, at_least, write_whole

SEED = 2023
COUNT = 45


class Pair(NamedTuple):
    """A video and the sound to dub it with."""

    clip: str
    sound: str  # another clip's name, or the clip's own
    name: str  # of the result: the clip's, with the sound's appended if a list gives the clip several sounds


def choose_clips(names: Collection[str], count: int = COUNT, seed: int = SEED) -> list[str]:
    """Chooses `count` of the names by the rule above, sorted; all of them if there are not more."""
    at_least(1, count=count)
    at_least(0, seed=seed)
    ordered = sorted(set(names))
    permutation = np.random.default_rng(seed).permutation(len(ordered))
    return sorted(ordered[i] for i in permutation[:count])


def own_sounds(clips: list[str]) -> list[Pair]:
    """Reconstruction: every clip with its own sound."""
    return [Pair(clip, clip, clip) for clip in clips]


def exchanged_sounds(clips: list[str], seed: int = SEED) -> list[Pair]:
    """Dubbing: every clip with the sound of the next one, in a cyclic order given by the seed."""
    if len(clips) < 2:
        raise UserError("dubbing needs two clips or more: each takes the sound of another")
    order = np.random.default_rng(seed).permutation(len(clips))
    sounds = {clips[i]: clips[j] for i, j in zip(order, np.roll(order, -1), strict=True)}
    return [Pair(clip, sounds[clip], clip) for clip in clips]


def read_pairs(path: Path) -> list[Pair]:
    """Reads a list with `video sound` in each line: names below the folder of videos, in quotes if they hold spaces.

    Raises UserError if a line differs.
    """
    lines = read_words(path)
    if not lines or any(len(words) != 2 for words in lines):
        raise UserError(f"{path} needs two names a line: the video, and the clip whose sound it gets")
    unique = dict.fromkeys((clip, sound) for clip, sound in lines)
    num_sounds = Counter(clip for clip, _ in unique)
    pairs = []
    for clip, sound in unique:
        name = clip if num_sounds[clip] == 1 else f"{clip}_{sound.replace('/', '_')}"
        pairs.append(Pair(clip, sound, name))
    return pairs


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Writes a list for `read_pairs`."""
    write_whole(path, "".join(f"{quoted(pair.clip)} {quoted(pair.sound)}\n" for pair in pairs))


def parse_named(values: tuple[str, ...]) -> dict[str, Path]:
    """NAME=PATH words as name -> path. Raises UserError if there is no =, or a name is used twice."""
    paths: dict[str, Path] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not name:
            raise UserError(f"{value}: write NAME=FOLDER, or NAME=VIDEO where one video is meant")
        if name in paths:
            raise UserError(f"two are named {name}; each needs a name of its own")
        paths[name] = Path(path)
    return paths


def find_videos(folder: Path) -> dict[str, Path]:
    """Clip name (path below the folder, without suffix) -> video. Hidden files are ignored: unfinished, or macOS's.

    Raises UserError if there is no video, or two share a name.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    videos: dict[str, Path] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in videos:
            raise UserError(f"{path} has the same name as {videos[name].name}; leave one of them in the folder")
        videos[name] = path
    if not videos:
        raise UserError(f"there is no video in {folder} ({' '.join(SUFFIXES)})")
    return videos


def match_videos(clips: list[str], videos: dict[str, Path]) -> dict[str, Path]:
    """Clip -> its video in somebody's folder: by exact name, or else by the one file with a similar name.

    Public code writes `speaker/clip`, `speaker_clip`, `speaker-clip` or `main/speaker/clip`. A file belongs to one clip
    only: the one with its name, or else the longest name that its name ends with; to none if two clips fit equally.
    """
    candidates = defaultdict(list)
    for name, path in videos.items():
        clip = _owner(name, clips)
        if clip:
            candidates[clip].append(path)
    matched = {clip: paths[0] for clip, paths in candidates.items() if len(paths) == 1}
    exact = {clip: videos[clip] for clip in clips if clip in videos}
    return matched | exact


def _owner(name: str, clips: list[str]) -> str | None:
    if name in clips:
        return name
    fitting = [clip for clip in clips if _flat(name).endswith(_flat(clip))]
    if not fitting:
        return None
    longest = max(map(len, fitting))
    owners = [clip for clip in fitting if len(clip) == longest]
    return owners[0] if len(owners) == 1 else None


def _flat(name: str) -> str:
    return "/" + name.replace("_", "/").replace("-", "/")
