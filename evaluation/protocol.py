"""Which clips, with which sound, against which files: the paper's section 4.1, made repeatable.

The paper samples 45 clips of LRS2's test list and 45 of LRS3 without saying which. Here: the names of the list, sorted,
permuted by `SEED`, the first `COUNT`. In dubbing each gets the sound of the next one, so that nobody keeps theirs.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.splits import quoted, read_words
from media.video import SUFFIXES
from runtime.command_line import UserError, at_least, write_whole

SEED, COUNT = 2023, 45


class Pair(NamedTuple):
    """A video and the sound that it is to be dubbed with; `sound` is the name of another clip or the clip's own.

    `name` is that of the result: the clip's, or where a list gives a clip several sounds, with the sound's behind it.
    """

    clip: str
    sound: str
    name: str


def choose(names: list[str], count: int = COUNT, seed: int = SEED) -> list[str]:
    """`count` of the names by the rule above, sorted; all of them where there are no more."""
    at_least(1, count=count)
    at_least(0, seed=seed)
    ordered = sorted(set(names))
    chosen = np.random.default_rng(seed).permutation(len(ordered))[:count]
    return sorted(ordered[i] for i in chosen)


def pairs(clips: list[str], dubbing: bool, seed: int = SEED) -> list[Pair]:
    """Reconstruction: every clip with its own sound. Dubbing: with that of the next in an order given by the seed."""
    if not dubbing:
        return [Pair(clip, clip, clip) for clip in clips]
    if len(clips) < 2:
        raise UserError("dubbing needs two clips or more: each takes the sound of another")
    order = np.random.default_rng(seed).permutation(len(clips))
    sound = {clips[a]: clips[b] for a, b in zip(order, np.roll(order, -1), strict=True)}
    return [Pair(clip, sound[clip], clip) for clip in clips]


def read_pairs(path: Path) -> list[Pair]:
    """A list with `video sound` in each line; both are names below the folder of videos, and stand in double
    quotes if they hold spaces."""
    lines = read_words(path)
    if not lines or any(len(words) != 2 for words in lines):
        raise UserError(f"--pairs: {path} needs two names a line: the video, and the clip whose sound it gets")
    once = list(dict.fromkeys((clip, sound) for clip, sound in lines))
    times = Counter(clip for clip, _ in once)
    return [Pair(a, b, a if times[a] == 1 else f"{a}_{b.replace('/', '_')}") for a, b in once]


def write_pairs(path: Path, listed: list[Pair]) -> None:
    """A list that `read_pairs` reads."""
    write_whole(path, "".join(f"{quoted(pair.clip)} {quoted(pair.sound)}\n" for pair in listed))


def named(values: tuple[str, ...], flag: str) -> dict[str, Path]:
    """NAME=FOLDER or NAME=VIDEO words. Raises UserError where there is no =, or a name stands twice."""
    found: dict[str, Path] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not name:
            raise UserError(f"{flag} {value}: write NAME=FOLDER, or NAME=VIDEO where one video is meant")
        if name in found:
            raise UserError(f"{flag}: two are named {name}; each needs a name of its own")
        found[name] = Path(path)
    return found


def index(folder: Path, flag: str) -> dict[str, Path]:
    """Clip name (path below the folder without suffix) -> video. Hidden files are none: they are unfinished or macOS's.

    Raises UserError if there is none, or two have one name.
    """
    if not folder.is_dir():
        raise UserError(f"{flag}: {folder} is not a folder")
    files = sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{flag}: there is no video in {folder} ({' '.join(SUFFIXES)})")
    found: dict[str, Path] = {}
    for path in files:
        if (other := found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)) is not path:
            raise UserError(f"{flag}: {path} has the same name as {other.name}; leave one of them in the folder")
    return found


def match(clips: list[str], found: dict[str, Path]) -> dict[str, Path]:
    """Clip -> its video in somebody's folder: by name, or else by the one file whose name ends, or is flattened, alike.

    Public code writes `speaker/clip`, `speaker_clip`, `speaker-clip` or `main/speaker/clip`. A file is of one clip
    only: of that name, or else of the longest that fits; of none where two names differ by such signs alone.
    """

    def flat(name: str) -> str:
        return "/" + name.replace("_", "/").replace("-", "/")

    wanted, files = set(clips), defaultdict(list)
    for name, path in found.items():
        fitting = {name} & wanted or {clip for clip in wanted if flat(name).endswith(flat(clip))}
        longest = [clip for clip in fitting if len(clip) == max(map(len, fitting))]
        if len(longest) == 1:
            files[longest[0]].append(path)
    exact = {clip: found[clip] for clip in wanted & found.keys()}
    return {clip: own[0] for clip, own in files.items() if len(own) == 1} | exact
