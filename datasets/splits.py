"""Splits clips into training, validation and test sets: by published lists, else by speaker. Sets never overlap."""

import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from media.files import SUFFIXES
from runtime.command_line import UserError

SHARE = 0.03  # of the speakers for validation, and again for test, if there are no lists


@dataclass(frozen=True)
class SplitConfig:
    """Lists name one clip per line; after the name only speaker=NAME counts."""

    train_list: Path | None = None
    """List of clips to train on, one per line; by default all clips that are in no other list."""
    val_list: Path | None = None
    """List of clips for validation, which selects the model."""
    test_list: Path | None = None
    """List of clips that training never uses."""


@dataclass(frozen=True)
class Split:
    """Names of clips, each in at most one list, and their speakers."""

    train: list[str]
    val: list[str]
    test: list[str]
    speakers: dict[str, str]

    def __str__(self) -> str:
        return f"{len(self.train)} clips to train on, {len(self.val)} for validation, {len(self.test)} left for test"


def speaker_of(name: str) -> str:
    """The speaker by layout: the folder that contains the clip. A clip in no folder is its own speaker."""
    return name.rsplit("/", 2)[-2] if "/" in name else name


def quoted(name: str) -> str:
    """A clip's name as a word of a list: in double quotes if it contains spaces."""
    return f'"{name}"' if len(name.split()) > 1 else name


def read_words(path: Path) -> list[list[str]]:
    """Reads the words of each line that is not empty. Words with spaces are in double quotes.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of clips ({error})") from error
    lines = [re.findall(r'"([^"]+)"|(\S+)', line) for line in text.splitlines()]
    return [[quoted or plain for quoted, plain in words] for words in lines if words]


def read_list(path: Path) -> dict[str, dict[str, str]]:
    """Returns the key=value words of each entry, in the list's order. Lines that begin with # are comments.

    Raises:
        UserError: the file cannot be read or lists no clip.
    """
    entries = {}
    for entry, *words in read_words(path):
        if not entry.startswith("#"):
            entries[entry] = dict(word.split("=", 1) for word in words if "=" in word)
    if not entries:
        raise UserError(f"{path} lists no clip; it needs one name per line")
    return entries


def select_shard(items: list[Any], shard: str) -> list[Any]:
    """Selects the items of shard "i/n", i from 1 to n: item k (from 0) belongs to shard 1 + k % n.

    Raises:
        UserError: the shard is malformed.
    """
    index, _, count = shard.partition("/")
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return items[int(index) - 1 :: int(count)]
    raise UserError(f"{shard} is not a shard: give i/n with i from 1 to n, such as 1/8")


def match(entries: Iterable[str], names: Iterable[str], source: object) -> dict[str, str]:
    """Finds the clip of each list entry that has one. Entries without a clip are counted on stderr.

    An entry is a clip's name, or the end of it from any folder on. Video suffixes, backslashes, a leading ./ and
    absolute paths are accepted. If several clips match, the one of exactly this name is chosen, else the one in a
    folder `main`: LRS2 has the same names in `main`, to which its lists refer, and in `pretrain`.

    Args:
        entries: list entries.
        names: names of all clips.
        source: the list, for messages.

    Raises:
        UserError: an entry matches several clips, or no entry matches any.
    """
    entries = list(entries)
    names = list(names)
    by_ending = defaultdict(list)
    for name in names:
        for ending in _endings(name):
            by_ending[ending].append(name)
    matched = {}
    for entry in entries:
        key = entry if entry in by_ending else _clip_name(entry, by_ending)
        matches = by_ending.get(key, [])
        exact = [name for name in matches if name == key]
        main = [name for name in matches if f"/{name}".endswith(f"/main/{key}")]
        matches = exact or main or matches
        if len(matches) > 1:
            raise UserError(f"list entry {entry} matches several clips ({', '.join(matches)}); give the full name")
        if matches:
            matched[entry] = matches[0]
    if not matched:
        raise UserError(f"{source}: no entry, such as {entries[0]}, matches a clip; clips have names like {names[0]}")
    missing = [entry for entry in entries if entry not in matched]
    if missing:
        print(
            f"{source}: {len(missing)} of {len(entries)} entries match no clip, such as {missing[0]}", file=sys.stderr
        )
    return matched


def _endings(name: str) -> list[str]:
    """The name without its first 0, 1, 2, ... folders."""
    parts = name.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _clip_name(entry: str, by_ending: Mapping[str, list[str]]) -> str:
    r"""The name that an entry such as .\main\1\2.mp4 or /data/main/1/2.mp4 means."""
    path = PureWindowsPath(entry)  # takes both kinds of slashes
    if path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    name = path.as_posix()
    if path.anchor:  # an absolute path ends with the whole name
        return next((ending for ending in _endings(name) if ending in by_ending.get(ending, ())), entry)
    return name


def split(names: Iterable[str], config: SplitConfig) -> Split:
    """Splits clips by the lists of `config`; without a list, a hash of the speaker decides.

    Without a test list, clips in a folder named `test` (LRS3) are the test set; if there is no such folder but another
    list, there is no test set. Without a validation list, validation clips are taken from the training clips. If the
    hash selects no speaker for validation, the one with the lowest hash is taken. If there is only one speaker, clips
    are hashed instead of speakers.

    Raises:
        UserError: a list cannot be read or matches no clip, or a clip is in two lists.
    """
    names = sorted(names)
    speakers = {name: speaker_of(name) for name in names}
    lists = {"train": config.train_list, "val": config.val_list, "test": config.test_list}
    parts = {}  # by clip
    for part, path in lists.items():
        if path is None:
            continue
        entries = read_list(path)
        for entry, name in match(entries, names, path).items():
            if parts.setdefault(name, part) != part:
                raise UserError(f"{lists[parts[name]]} and {path} both list {name}; a clip may be in only one")
            speakers[name] = entries[entry].get("speaker", speakers[name])
    if config.test_list is None:
        for name in names:
            if "test" in name.split("/")[:-1]:
                parts.setdefault(name, "test")
    test_by_hash = not parts
    if config.train_list is None:
        parts = dict.fromkeys(names, "train") | parts
    remaining = [name for name in names if parts.get(name) == "train"]
    several = len({speakers[name] for name in remaining}) > 1
    hashes = {name: _hash(speakers[name] if several else name) for name in remaining}
    if len(remaining) > 1:
        lowest = min(hashes.values())
        for name, number in hashes.items():
            if config.val_list is None and number <= max(SHARE, lowest):
                parts[name] = "val"
            elif test_by_hash and number >= 1 - SHARE:
                parts[name] = "test"
    train, val, test = ([name for name in names if parts.get(name) == part] for part in lists)
    return Split(train, val, test, speakers)


def _hash(text: str) -> float:
    """A hash in [0, 1)."""
    return zlib.crc32(text.encode(errors="surrogateescape")) / 2**32
