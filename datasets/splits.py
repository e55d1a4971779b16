"""Which clips train, which validate, which test: by published lists, else by speaker. Validation is never test."""

import itertools
import shlex
import sys
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.command_line import UserError


@dataclass(frozen=True)
class SplitConfig:
    """Lists have a clip a line; further words in a line are ignored, but for speaker=NAME."""

    train_list: Path | None = None  # clips to train on; without it, all that are in no other list
    val_list: Path | None = None  # clips that choose the model
    test_list: Path | None = None  # clips left alone until the end
    val_share: float = 0.03  # of the speakers, where no list says
    test_share: float = 0.03  # of the speakers, where no list and no folder named test says


@dataclass(frozen=True)
class Split:
    """Names of clips, each in one list at most, and who speaks in them."""

    train: list[str]
    val: list[str]
    test: list[str]
    speakers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{len(self.train)} clips to train on, {len(self.val)} for validation, {len(self.test)} left for test"


def speaker_of(name: str) -> str:
    """The speaker by layout: the name of the folder that holds the clip; a clip in no folder is its own speaker."""
    return name.rsplit("/", 2)[-2] if "/" in name else name


def words_of(line: str) -> list[str]:
    """The words of a line; those with spaces stand in double quotes. Raises ValueError where one has no end."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.quotes, lexer.escape, lexer.commenters = True, '"', "", ""
    return list(lexer)


def quoted(name: str) -> str:
    """A name as a word of a list."""
    return f'"{name}"' if len(name.split()) > 1 else name


def read_words(path: Path, flag: str) -> list[list[str]]:
    """The words of every line that holds some. Raises UserError if the file can't be read."""
    try:
        return [words for line in path.read_text(encoding="utf-8-sig").splitlines() if (words := words_of(line))]
    except (OSError, ValueError) as error:
        raise UserError(f"{flag}: {path} cannot be read as a list of clips ({error})") from error


def read_list(path: Path, flag: str = "--list") -> dict[str, dict[str, str]]:
    """Clip -> the key=value words behind it, in the list's order; empty lines and lines with # in front are left out.

    A name with spaces stands in double quotes.

    Raises:
        UserError: the file can't be read or holds no clip.
    """
    entries = {
        words[0]: dict(word.split("=", 1) for word in words[1:] if "=" in word)
        for words in read_words(path, flag)
        if not words[0].startswith("#")
    }
    if not entries:
        raise UserError(f"{flag}: {path} holds no clip; it needs one name a line")
    return entries


def match(entries: Collection[str], names: Iterable[str], flag: str) -> dict[str, str]:
    """List entry -> clip, for the entries that have one (others failed in preprocessing).

    A list names clips as below some folder of the layout. Of several the one of exactly that name is meant, or else the
    one in a folder `main`: LRS2 has the same names in `main`, which its train, val and test lists are about, and in
    `pretrain`. The latter entries, and those without a clip, are counted on stderr.

    Raises:
        UserError: an entry fits several clips, or none fits one.
    """
    names = list(names)
    by_end: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        for k in range(len(parts)):
            by_end.setdefault("/".join(parts[k:]), []).append(name)
    matched = {}
    for entry in entries:
        fitting = by_end.get(entry, [])
        exact = [entry] if entry in fitting else [n for n in fitting if f"/{n}".endswith(f"/main/{entry}")]
        if len(exact or fitting) > 1:
            raise UserError(f"list entry {entry} fits several clips ({', '.join(fitting)}); write their whole names")
        if fitting:
            matched[entry] = (exact or fitting)[0]
    if not matched:
        example = next(iter(entries))
        raise UserError(f"{flag}: no entry, such as {example}, is one of the clips, whose names are like {names[0]}")
    if several := [entry for entry, name in matched.items() if len(by_end[entry]) > 1 and entry != name]:
        print(f"{flag}: {len(several)} entries, such as {several[0]}, fit several clips; that in main is meant",
              file=sys.stderr)  # fmt: skip
    if missing := [entry for entry in entries if entry not in matched]:
        print(f"{flag}: {len(missing)} of {len(entries)} entries fit no clip, such as {missing[0]}", file=sys.stderr)
    return matched


def split(names: Iterable[str], config: SplitConfig) -> Split:
    """Splits clips by the lists in `config`; where there is none, a hash of the speaker decides.

    A folder named `test` (LRS3) is the test set when there is no test list. With lists but none for test there is no
    test set; with none for validation it is taken from the training clips. Where the hash leaves no speaker for
    validation, the one with the lowest hash is taken; if there is only one speaker, clips take the speakers' part.

    Raises:
        UserError: a list can't be read or fits no clip, or a clip is in two of them.
    """
    names = sorted(names)
    speakers = {name: speaker_of(name) for name in names}
    chosen: dict[str, set[str]] = {}
    for kind in ("train", "val", "test"):
        if path := getattr(config, f"{kind}_list"):
            entries = read_list(path, f"--{kind}-list")
            matched = match(entries, names, f"--{kind}-list")
            chosen[kind] = set(matched.values())
            speakers |= {name: entries[e]["speaker"] for e, name in matched.items() if "speaker" in entries[e]}
    for a, b in itertools.combinations(chosen, 2):
        if both := chosen[a] & chosen[b]:
            raise UserError(f"--{a}-list and --{b}-list both hold {min(both)}; a clip may be in one of them only")
    draw_test = not chosen
    if "test" not in chosen:
        chosen["test"] = {name for name in names if "test" in name.split("/")[:-1]}.difference(*chosen.values())
        draw_test &= not chosen["test"]
    rest = chosen.get("train") or set(names).difference(*chosen.values())

    unit = speakers if len({speakers[name] for name in rest}) > 1 else {name: name for name in names}
    place = {unit[name]: zlib.crc32(unit[name].encode(errors="surrogateescape")) / 2**32 for name in rest}  # [0, 1)
    if "val" not in chosen:
        limit = max(config.val_share, min(place.values(), default=0)) if len(place) > 1 else -1
        chosen["val"] = {name for name in rest if place[unit[name]] <= limit}
    if draw_test:
        limit = 1 - config.test_share
        chosen["test"] = {name for name in rest - chosen["val"] if place[unit[name]] >= limit}
    train = rest - chosen["val"] - chosen["test"]
    return Split(sorted(train), sorted(chosen["val"]), sorted(chosen["test"]), speakers)
