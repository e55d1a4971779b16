"""Which videos there are, what their clips are called, and which of them belong to this run."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import UserError
from datasets.splits import match, read_list

VIDEO_SUFFIXES = (
    ".3gp",
    ".avi",
    ".flv",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".ts",
    ".webm",
    ".wmv",
)
SOUND_SUFFIX = ".wav"


@dataclass(frozen=True)
class Source:
    """A video to preprocess."""

    name: str  # of its clip: path below the folder, without suffix
    path: Path
    sound_shift: int = 0  # frames at 25 fps that the sound is moved to later


def find_videos(root: Path) -> tuple[list[Source], dict[str, str]]:
    """All videos below a folder, sorted by name, and what could not be taken: name -> why.

    Links to folders are followed, each folder once, so a loop of links ends.

    Raises:
        UserError: the folder is missing, unreadable or holds no video.
    """
    if not root.is_dir():
        raise UserError(f"--videos: {root} is not a folder; give the folder that holds the videos")
    sources: dict[str, Source] = {}
    refused: dict[str, str] = {}

    def refuse(error: OSError) -> None:
        refused[_name(root, Path(error.filename or root))] = error.strerror or "cannot be read"

    seen: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            name = _name(root, path.with_name(path.stem))
            if name in sources:
                refused[_name(root, path)] = f"has the same name as {sources[name].path.name}, which is taken"
            else:
                sources[name] = Source(name, path)
    if not sources:
        problem = f"cannot be read ({next(iter(refused.values()))})" if refused else "holds no video"
        raise UserError(f"--videos: {root} {problem}; known suffixes are {' '.join(VIDEO_SUFFIXES)}")
    return [sources[name] for name in sorted(sources)], refused


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def choose(sources: Sequence[Source], lists: Sequence[Path], shard: str, shifts: Path | None) -> list[Source]:
    """Keeps the clips of the lists (all, if there are none) and of one shard, and notes how their sound is moved.

    Args:
        sources: sorted by name.
        lists: files with a clip a line, see datasets.splits.
        shard: "i/n" with i from 1 to n; clip k goes to shard 1 + k % n.
        shifts: a file with lines "clip frames=-5".

    Raises:
        UserError: a file or the shard is malformed, or nothing is left.
    """
    parsed = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not parsed or not 1 <= int(parsed[1]) <= int(parsed[2]):
        raise UserError(f"--shard {shard}: give i/n with i from 1 to n, such as 1/8")
    index, count = int(parsed[1]), int(parsed[2])
    by_name = {source.name: source for source in sources}
    if lists:
        entries = [entry for path in lists for entry in read_list(path)]
        by_name = {name: by_name[name] for name in sorted(match(entries, by_name).values())}
        if not by_name:
            raise UserError(f"--list: none of the {len(entries)} clips listed is below --videos")
    if shifts:
        moved = read_list(shifts, "--audio-shift")
        for entry, name in match(moved, by_name).items():
            try:
                by_name[name] = Source(name, by_name[name].path, int(moved[entry]["frames"]))
            except (KeyError, ValueError):
                raise UserError(f"--audio-shift: {shifts} has no frames=NUMBER behind {entry}") from None
    return list(by_name.values())[index - 1 :: count]
