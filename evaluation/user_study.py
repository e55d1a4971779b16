"""The user study of Table 2: a web page that asks for opinion scores, and the table of the answers."""

import base64
import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation import protocol
from evaluation.tables import Row, Table, bootstrap, make_output_folder, published_rows
from media.video import Video
from media.writer import VideoWriter
from runtime import command_line
from runtime.command_line import SettingError, UserError, naming, write_whole

TEMPLATE = Path(__file__).with_name("study.html")
SLOT = "/*STUDY*/null/*END*/"
QUESTIONS = {
    "image quality": "How good is the picture?",
    "lip sync": "How well do the lips follow the speech?",
    "identity": "How much does the face stay the same person?",
}
INVALID = (OSError, ValueError, LookupError, TypeError, AttributeError)  # raised by reading files of another content


@dataclass(frozen=True)
class StudyConfig:
    """One self-contained page from folders of videos; participants cannot see which method is which."""

    methods: tuple[str, ...]
    """NAME=FOLDER of each method's videos."""
    output: Path
    """The page (.html). NAME.key.json is written beside it: table2 needs it, and participants must not get it."""
    count: int = 10
    """Clips, chosen among those that every method has (the paper: 5 from each dataset)."""
    seed: int = protocol.SEED
    """Of the choice and of the order, which differs for each participant."""
    checks: int = 2
    """Attention checks."""
    crf: int = 20
    """Quality of the videos in the page: 0 (best, large) to 51."""


@dataclass(frozen=True)
class Key:
    """What `study` keeps from the participants."""

    id: str
    questions: list[str]
    trials: dict[str, dict[str, str]]  # number -> "method" and "clip"
    checks: dict[str, int]  # name -> the right answer


def study(config: StudyConfig) -> None:
    command_line.check_output(config.output, "--output", (".html",))
    command_line.at_least(1, count=config.count)
    command_line.at_least(0, seed=config.seed, checks=config.checks, crf=config.crf)
    if config.crf > 51:
        raise SettingError("crf", f"at most 51, the lowest quality, is possible, not {config.crf}")
    with naming("--methods"):
        videos = choose_videos(config)
    content = []
    for (method, clip), path in videos.items():
        content.append((method, clip, hashlib.sha256(path.read_bytes()).hexdigest()))
    identity = json.dumps([content, config.seed, config.checks, config.crf])
    # Random numbers come from the whole hash, of which the page shows only a part: they must not give methods away.
    digest = hashlib.sha256(identity.encode()).hexdigest()
    random = np.random.default_rng(int(digest, 16))
    numbers = {f"{random.integers(1 << 40):010x}": video for video in videos}
    key = Key(
        id=digest[:12],
        questions=list(QUESTIONS),
        trials={number: {"method": method, "clip": clip} for number, (method, clip) in numbers.items()},
        checks={f"check{i}": int(random.integers(1, 6)) for i in range(config.checks)},
    )
    key_path = config.output.with_suffix(".key.json")
    key_text = json.dumps(asdict(key))
    if key_path.exists() and key_path.read_text(encoding="utf-8") != key_text:
        raise UserError(f"--output: {key_path} belongs to another study, whose answers need it; choose another name")
    page = {
        "id": key.id,
        "seed": config.seed,
        "questions": list(QUESTIONS.values()),
        "checks": [{"id": check, "value": value} for check, value in key.checks.items()],
        "trials": [
            {"id": number, "video": encode_video(videos[numbers[number]], config.crf)} for number in sorted(numbers)
        ],
    }
    script = json.dumps(page).replace("</", "<\\/")
    write_whole(config.output, TEMPLATE.read_text(encoding="utf-8").replace(SLOT, script))
    write_whole(key_path, key_text)
    print(f"{config.output}: videos: {len(videos)}, {len(script) / 1e6:.1f} MB; keep {key_path} to yourself")


def choose_videos(config: StudyConfig) -> dict[tuple[str, str], Path]:
    """(method, clip) -> video, of the chosen clips. Raises UserError if no clip is in all folders."""
    folders = protocol.parse_named(config.methods)
    if not folders:
        raise UserError("name at least one, as NAME=FOLDER")
    found = {method: protocol.find_videos(folder) for method, folder in folders.items()}
    common = set.intersection(*(set(videos) for videos in found.values()))
    if not common:
        raise UserError(f"no clip is in all folders; the first has {min(next(iter(found.values())))}")
    for method, videos in found.items():
        if len(videos) > len(common):
            others = f"{len(videos) - len(common)} of {len(videos)} videos"
            print(f"--methods {method}: {others} are not in all folders and are left out", file=sys.stderr)
    chosen = {}
    for clip in protocol.choose_clips(common, config.count, config.seed):
        for method, videos in found.items():
            chosen[method, clip] = videos[clip]
    return chosen


def encode_video(path: Path, crf: int) -> str:
    """A video as a data: address, in H.264 4:2:0 and AAC, which every browser plays, without its file's name."""
    video = Video(path, fps=None)
    size = (video.width, video.height)
    sound = path if video.has_audio else None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "video.mp4"
        with VideoWriter(copy, video.fps, size, sound, crf=crf) as writer:
            for frame in video:
                writer.write(frame)
        return "data:video/mp4;base64," + base64.b64encode(copy.read_bytes()).decode()


@dataclass(frozen=True)
class Table2Config:
    """Mean opinion scores from the files that participants sent."""

    key: Path
    """NAME.key.json, which `study` wrote beside the page."""
    answers: tuple[Path, ...]
    """Files of answers, or folders of them."""
    output: Path | None = None
    """Folder for the table as Markdown and JSON."""


class Answers(NamedTuple):
    """One file of answers."""

    saved: str
    participant: tuple[str, str]  # name and time of the beginning: two people may have one name
    ratings: np.ndarray  # (trials + checks, questions), 1 to 5, NaN for none


def read_file(path: Path, key: Key) -> Answers:
    """Reads one participant's file. Raises one of `INVALID` if it holds no answers to this study."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["study"] != key.id:
        raise ValueError(f"another study's: {content['study']}, not {key.id}")
    items = [*key.trials, *key.checks]
    ratings = np.full((len(items), len(key.questions)), np.nan)
    for item, values in content["answers"].items():
        ratings[items.index(item), : len(values)] = np.array(values, dtype=float)  # null becomes NaN
    if ((ratings < 1) | (ratings > 5)).any():
        raise ValueError("an answer is not from 1 to 5")
    participant = (str(content["participant"]), str(content.get("started", "")))
    return Answers(str(content.get("saved", "")), participant, ratings)


def read_answers(paths: tuple[Path, ...], key: Key) -> list[np.ndarray]:
    """Ratings (trials, questions) of every participant, NaN for none.

    The last of a participant's files counts; those who failed an attention check are named and left out.
    """
    files = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = []
    for path in files:
        try:
            found.append(read_file(path, key))
        except INVALID as error:
            print(f"{path} holds no answers to this study and is left out ({error})", file=sys.stderr)
    found.sort(key=lambda answers: answers.saved)
    latest = {answers.participant: answers.ratings for answers in found}
    expected = np.array(list(key.checks.values()), dtype=float)[:, None]  # (checks, 1)
    ratings = []
    for (name, _), given in latest.items():
        trials, checks = np.split(given, [len(key.trials)])
        if (np.isfinite(checks) & (checks != expected)).any():
            print(f"{name} failed an attention check and is left out", file=sys.stderr)
        else:
            ratings.append(trials)
    return ratings


def read_key(path: Path) -> Key:
    """Reads what `study` wrote beside its page. Raises UserError if the file is something else."""
    try:
        return Key(**json.loads(path.read_text(encoding="utf-8")))
    except INVALID as error:
        raise UserError(f"{path} is no key of a study ({error})") from error


def summarise_method(method: str, key: Key, ratings: np.ndarray) -> Row:
    """A method's mean opinion scores, with intervals over people, from ratings (people, trials, questions)."""
    trials = list(key.trials.values())
    own = [i for i, trial in enumerate(trials) if trial["method"] == method]
    counts = np.isfinite(ratings[:, own]).sum(axis=1, dtype=float)  # (people, questions)
    means = np.nansum(ratings[:, own], axis=1) / np.where(counts, counts, np.nan)
    cells = {question: bootstrap(means[:, k], counts[:, k]) for k, question in enumerate(key.questions)}
    return Row(method, cells)


def table2(config: Table2Config) -> None:
    make_output_folder(config.output)
    with naming("--key"):
        key = read_key(config.key)
    people = read_answers(config.answers, key)
    if not people:
        raise UserError(f"--answers: no usable file of answers to study {key.id}")
    ratings = np.stack(people)  # (people, trials, questions)
    methods = dict.fromkeys(trial["method"] for trial in key.trials.values())
    rows = [summarise_method(method, key, ratings) for method in methods]
    answers = np.isfinite(ratings).sum()
    notes = [f"people: {len(people)}, answers: {answers}, from 1 to 5; [95 % interval over people]"]
    Table("table2, user study", [*rows, *published_rows("table2")], notes).publish(config.output, "table2")
