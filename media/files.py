"""Finds videos and other files below a folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime.command_line import UserError

SUFFIXES = (  # of videos
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


def find_videos(root: Path) -> list[tuple[str, Path]]:
    """Finds all videos below a folder: names (paths below it, without suffix) and files. Hidden files do not count.

    Raises:
        UserError: the folder is missing, or there is no video in it.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the folder that contains the videos")
    videos = []
    for path in files_below(root):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):  # unfinished files, macOS metadata
            videos.append((path.with_suffix("").relative_to(root).as_posix(), path))
    if not videos:
        raise UserError(f"{root} contains no video; known suffixes are {' '.join(SUFFIXES)}")
    return videos


def files_below(root: Path) -> Iterator[Path]:
    """Yields all files below a folder, in each folder sorted by name.

    Follows links to folders, but visits each folder only once, so that loops end. A folder that cannot be read is named
    on stderr.
    """
    visited = set()
    for folder, subfolders, files in os.walk(root, onerror=_report, followlinks=True):
        real_folder = Path(folder).resolve()
        if real_folder in visited:
            subfolders.clear()
            continue
        visited.add(real_folder)
        subfolders.sort()
        for file in sorted(files):
            yield Path(folder, file)


def _report(error: OSError) -> None:
    print(f"{error.filename} cannot be read: {error.strerror}", file=sys.stderr)
