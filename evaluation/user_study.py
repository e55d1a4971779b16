"""The user study of Table 2: a web page that asks, and the opinion scores of those who answered."""

import base64
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from evaluation import protocol, tables
from evaluation.protocol import named
from evaluation.tables import ClipScore, Row, Table, bootstrap
from media.video import Video
from media.writer import VideoWriter
from metrics.lip_motion import nan_mean
from runtime import command_line
from runtime.command_line import UserError

TEMPLATE, SLOT = Path(__file__).with_name("study.html"), "/*STUDY*/null/*END*/"
QUESTIONS = {
    "image quality": "How good is the picture?",
    "lip sync": "How well do the lips follow the speech?",
    "identity": "How much does the face stay the same person?",
}


@dataclass(frozen=True)
class Study:
    """One self-contained page from folders of videos; nobody who answers can see which method is which."""

    methods: tuple[str, ...]
    """NAME=FOLDER of each method's videos."""
    output: Path
    """The page (.html); beside it goes NAME.key.json, which `mos` needs and participants must not get."""
    count: int = 10
    """Clips, chosen among those that every method has (the paper: 5 from each dataset)."""
    seed: int = protocol.SEED
    """Of the choice and of the order, which differs for each participant."""
    checks: int = 2
    """Attention checks."""
    crf: int = 20
    """Quality of the videos in the page: 0 (best, large) to 51."""


def study(config: Study) -> None:
    command_line.check_output(config.output, "--output", (".html",))
    command_line.at_least(0, seed=config.seed, checks=config.checks, crf=config.crf)
    if config.crf > 51:
        raise UserError(f"--crf {config.crf}: 51 is the lowest quality")
    found = {name: protocol.index(folder, "--methods") for name, folder in named(config.methods, "--methods").items()}
    if not found:
        raise UserError("--methods: name at least one, as NAME=FOLDER")
    clips = list(next(iter(found.values())))  # as the first method names them
    matched = {name: protocol.match(clips, files) for name, files in found.items()}
    common = sorted(set.intersection(*(set(files) for files in matched.values())))
    if not common:
        raise UserError(f"--methods: no clip is in all folders; the first has {min(clips)}")
    for name, files in found.items():
        if others := len(files) - len(common):
            print(f"--methods {name}: not in all folders, left out: {others} of {len(files)} videos", file=sys.stderr)
    clips = protocol.choose(common, config.count, config.seed)
    chosen = [(name, clip, files[clip]) for clip in clips for name, files in matched.items()]
    content = [(name, clip, hashlib.sha256(path.read_bytes()).hexdigest()) for name, clip, path in chosen]
    # Other videos or settings are another study. What is drawn comes from the whole hash, which the page does not show:
    # the order of drawing would give the methods away.
    whole = hashlib.sha256(json.dumps([content, config.seed, config.checks, config.crf]).encode()).hexdigest()
    random, key, videos, ident = np.random.default_rng(int(whole, 16)), {}, {}, whole[:12]
    for name, clip, path in chosen:
        trial = f"{random.integers(1 << 40):010x}"
        key[trial], videos[trial] = {"method": name, "clip": clip}, data_address(path, config.crf)
    trials = [{"id": trial, "video": videos[trial]} for trial in sorted(videos)]
    checks = [{"id": f"check{i}", "value": int(random.integers(1, 6))} for i in range(config.checks)]
    shown = {"id": ident, "seed": config.seed, "questions": [*QUESTIONS.values()], "checks": checks, "trials": trials}
    text = json.dumps(shown).replace("</", "<\\/")
    secret = {"id": ident, "questions": [*QUESTIONS], "trials": key, "checks": {c["id"]: c["value"] for c in checks}}
    kept = config.output.with_suffix(".key.json")
    if kept.exists() and kept.read_text(encoding="utf-8") != json.dumps(secret):
        raise UserError(f"--output: {kept} is another study's, whose answers are lost without it; choose another name")
    command_line.write_whole(config.output, TEMPLATE.read_text(encoding="utf-8").replace(SLOT, text))
    command_line.write_whole(kept, json.dumps(secret))
    print(f"{config.output}: videos: {len(trials)}, {len(text) / 1e6:.1f} MB; keep {kept} to yourself")


def data_address(path: Path, crf: int) -> str:
    """A video as a data: address, in H.264 4:2:0 and AAC, which every browser plays, without a telling name inside."""
    video = Video(path, fps=None)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "video.mp4"
        size, sound = (video.width, video.height), path if video.has_audio else None
        with VideoWriter(copy, video.fps, size, sound, crf=crf) as writer:
            for frame in video:
                writer.write(frame)
        return "data:video/mp4;base64," + base64.b64encode(copy.read_bytes()).decode()


@dataclass(frozen=True)
class Mos:
    """Table 2 from the files that participants sent."""

    key: Path
    """NAME.key.json, which `study` wrote beside the page."""
    answers: tuple[Path, ...]
    """Files of answers, or folders of them."""
    output: Path | None = None
    """Folder for the table in five formats."""


def agreement(ratings: np.ndarray) -> float:
    """Krippendorff's alpha with interval distances, from ratings (raters, trials) with NaN for none: 1 is agreement."""
    ratings = ratings[:, np.isfinite(ratings).sum(0) > 1]
    if not ratings.size:
        return float("nan")
    counts, total = np.isfinite(ratings).sum(0), np.isfinite(ratings).sum()
    # Sum over ordered pairs of squared differences = 2 n^2 variance.
    within = (2 * counts**2 * np.nanvar(ratings, axis=0) / (counts - 1)).sum() / total
    expected = 2 * total * np.nanvar(ratings) / (total - 1)
    return float(1 - within / expected) if expected else float("nan")


def read_answers(paths: tuple[Path, ...], key: dict) -> list[np.ndarray]:
    """Of every person: answers (trials, questions), NaN for none.

    Of several files of one person the last counts; who failed a check is named.
    """
    asked = [*key["trials"], *key["checks"]]
    found: list[tuple[str, tuple[str, str], np.ndarray]] = []  # when saved, by whom, what (asked, questions)
    for path in chain.from_iterable(sorted(p.glob("*.json")) if p.is_dir() else [p] for p in paths):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["study"] != key["id"]:
                raise ValueError(f"another study's: {content['study']}, not {key['id']}")
            ratings = np.full((len(asked), len(key["questions"])), np.nan)
            for trial, given in content["answers"].items():
                ratings[asked.index(trial), : len(given)] = np.array(given, dtype=float)  # null becomes NaN
            if ((ratings < 1) | (ratings > 5)).any():
                raise ValueError("an answer is not from 1 to 5")
            person = str(content["participant"]), str(content.get("started", ""))  # two people may have one name
            found.append((str(content.get("saved", "")), person, ratings))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            print(f"{path} holds no answers to this study, left out ({error})", file=sys.stderr)
    latest = {person: ratings for _, person, ratings in sorted(found, key=lambda each: each[0])}
    kept, wanted = [], np.array([*key["checks"].values()], dtype=float)[:, None]  # (checks, 1)
    for (name, _), ratings in latest.items():
        trials, checks = np.split(ratings, [len(key["trials"])])
        if (np.isfinite(checks) & (checks != wanted)).any():
            print(f"{name} failed an attention check; left out", file=sys.stderr)
        else:
            kept.append(trials)
    return kept


def mos(config: Mos) -> None:
    tables.output_folder(config.output)
    try:
        key = json.loads(config.key.read_text(encoding="utf-8"))
        questions, trials, *_ = (key[word] for word in ("questions", "trials", "checks", "id"))
        methods, clips = ([trial[word] for trial in trials.values()] for word in ("method", "clip"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"--key: {config.key} is no key of a study ({error})") from error
    people = read_answers(config.answers, key)
    if not people:
        raise UserError(f"--answers: no usable file of answers to study {key['id']}")
    ratings, rows = np.stack(people), []  # (people, trials, questions)
    reasons = ["" if rated else "nobody rated it" for rated in np.isfinite(ratings).any((0, 2))]  # of trials
    for method in dict.fromkeys(methods):
        own = [i for i, of in enumerate(methods) if of == method]
        counts = np.isfinite(ratings[:, own]).sum(1, dtype=float)  # (people, questions)
        means = np.nansum(ratings[:, own], axis=1) / np.where(counts, counts, np.nan)
        cells = {q: bootstrap(means[:, k], counts[:, k]) for k, q in enumerate(questions)}
        values = [dict(zip(questions, map(nan_mean, ratings[:, i].T), strict=True)) for i in own]
        scores = [ClipScore(clips[i], of, reason=reasons[i]) for i, of in zip(own, values, strict=True)]
        rows.append(Row(method, cells, scores))
    alphas = {question: agreement(ratings[:, :, k]) for k, question in enumerate(questions)}
    known = ", ".join(f"{question} {alpha:.2f}" for question, alpha in alphas.items() if np.isfinite(alpha))
    notes = [
        f"people: {len(people)}, answers: {np.isfinite(ratings).sum()}, from 1 to 5; [95 % interval over people]",
        f"agreement (Krippendorff's alpha, interval): {known or 'takes two people, and answers that differ'}",
    ]
    Table("table2, user study", [*rows, *tables.published("table2")], notes).publish(config.output, "table2")
