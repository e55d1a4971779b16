"""Which videos there are, what their clips are called, and which of them belong to this run."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.splits import match, read_list
from media.video import SUFFIXES
from runtime.command_line import UserError


@dataclass(frozen=True)
class Source:
    """A video to preprocess."""

    name: str  # of its clip: path below the folder, without suffix
    path: Path
    sound_shift: int = 0  # frames at 25 fps that the sound is moved to later


def find_videos(root: Path) -> tuple[list[Source], dict[str, str]]:
    """All videos below a folder, sorted by name, and what could not be taken: name -> why.

    Links to folders are followed, each folder once, so a loop of links ends. What a link and the layout both lead to
    is called as in the layout, which lists and speakers go by.

    Raises:
        UserError: the folder is missing, unreadable or holds no video.
    """
    if not root.is_dir():
        raise UserError(f"--videos: {root} is not a folder; give the folder that holds the videos")
    sources: dict[str, Source] = {}
    refused: dict[str, str] = {}
    seen: set[Path] = set()
    inside = root.resolve()

    def name_of(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    def refuse(error: OSError) -> None:
        refused[name_of(error.filename)] = error.strerror or "cannot be read"

    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        paths = sorted(Path(folder, name) for name in below)
        below[:] = [p.name for p in paths if not (p.is_symlink() and p.resolve().is_relative_to(inside))]
        for path in (Path(folder, file) for file in sorted(files)):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):  # unfinished, or macOS' notes
                source = Source(name_of(path.with_name(path.stem)), path)
                if sources.setdefault(source.name, source) is not source:
                    taken = sources[source.name].path.name
                    refused[name_of(path)] = f"has the same name as {taken}, which is taken"
    if not sources:
        problem = f"cannot be read ({next(iter(refused.values()))})" if refused else "holds no video"
        raise UserError(f"--videos: {root} {problem}; known suffixes are {' '.join(SUFFIXES)}")
    return [sources[name] for name in sorted(sources)], refused


def choose(sources: Sequence[Source], lists: Sequence[Path], shard: str, shifts: Path | None) -> list[Source]:
    """Keeps the clips of the lists (all, if there are none) and of one shard, and notes how their sound is moved.

    Args:
        sources: sorted by name.
        lists: files with a clip a line, see datasets.splits.
        shard: "i/n" with i from 1 to n; clip k goes to shard 1 + k % n.
        shifts: a file with lines "clip frames=-5".

    Raises:
        UserError: a file or the shard is malformed, or a file lists none of the clips.
    """
    parsed = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not parsed or not 1 <= int(parsed[1]) <= int(parsed[2]):
        raise UserError(f"--shard {shard}: give i/n with i from 1 to n, such as 1/8")
    by_name = {source.name: source for source in sources}
    if shifts:
        moved = read_list(shifts, "--audio-shift")
        for entry, name in match(moved, by_name, "--audio-shift").items():
            try:
                by_name[name] = replace(by_name[name], sound_shift=int(moved[entry]["frames"]))
            except (KeyError, ValueError):
                raise UserError(f"--audio-shift: {shifts} has no frames=NUMBER behind {entry}") from None
    chosen = list(by_name)
    if lists:
        entries = [entry for path in lists for entry in read_list(path)]
        chosen = sorted(set(match(entries, by_name, "--list").values()))
    return [by_name[name] for name in chosen][int(parsed[1]) - 1 :: int(parsed[2])]
