"""Finds videos, names their clips, and selects those in a list."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.splits import match, read_list
from media.files import find_videos
from runtime.command_line import UserError


@dataclass(frozen=True)
class Source:
    """A video to preprocess."""

    name: str
    """The clip's name: the path below the folder of videos, without suffix."""
    path: Path
    sound_shift: int = 0
    """Frames at 25 fps by which the sound is delayed."""


def find_sources(root: Path) -> list[Source]:
    """Finds all videos below a folder, sorted by name; reports on stderr what it skips.

    Raises:
        UserError: the folder is missing or no video is found.
    """
    sources = {}
    for name, path in find_videos(root):
        used = sources.setdefault(name, Source(name, path))
        if used.path != path:
            print(f"{path} is not used: {used.path.name} has the same name", file=sys.stderr)
    return [sources[name] for name in sorted(sources)]


def select_listed(sources: Sequence[Source], lists: Sequence[Path]) -> list[Source]:
    """The sources that are in at least one of the lists, sorted by name.

    Raises:
        UserError: a list cannot be read, or no entry is a clip.
    """
    entries = [entry for path in lists for entry in read_list(path)]
    names = match(entries, [source.name for source in sources], " and ".join(map(str, lists)))
    listed = set(names.values())
    return [source for source in sources if source.name in listed]


def shift_sounds(sources: Sequence[Source], path: Path) -> list[Source]:
    """Sets `sound_shift` of the clips listed in a file with lines such as "clip frames=-5".

    Raises:
        UserError: the file is malformed, or no entry is a clip.
    """
    by_name = {source.name: source for source in sources}
    entries = read_list(path)
    for entry, name in match(entries, by_name, path).items():
        try:
            frames = int(entries[entry]["frames"])
        except (KeyError, ValueError):
            raise UserError(f"{path} has no frames=NUMBER after {entry}") from None
        by_name[name] = replace(by_name[name], sound_shift=frames)
    return list(by_name.values())
