"""The paper's tables 1, 3, 4 and 5 from a folder of videos and weights."""

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from datasets.splits import match, read_list
from evaluation import protocol, tables
from evaluation.generate_videos import KINDS, Job, Method, make_all, sound_of
from evaluation.protocol import Pair, named
from evaluation.scoring import Options, Pools, Scorers
from evaluation.tables import ClipScore, Row, Table, reason_of, row_of
from face.tracking import track_faces
from media.audio import frames_for_samples
from media.video import Video
from metrics.image_quality import fid
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from runtime.command_line import UserError, at_least

ORIGINAL, UNTOUCHED = "original", "untouched video, new sound"
Files = dict[str, dict[str, Path | str]]  # row -> name of a result -> video, or why there is none
# Of one protocol: whose video with whose sound; clip -> original; every row's videos; those that are still to be made.
Plan = tuple[list[Pair], dict[str, Path], Files, list[Job]]


@dataclass(frozen=True)
class Config:
    """Makes the videos of a table (those that are there stay), scores them and prints the table beside the paper's."""

    videos: Path
    """Folder of original videos, for instance LRS2's main."""
    output: Path
    """Folder for made videos and the table in five formats."""
    clip_list: Path | None = None
    """Published list of clips to choose from, one a line; without it all videos."""
    pairs: Path | None = None
    """Your own list instead, `video sound` in each line; reconstruction gives each of its videos its own sound."""
    count: int = protocol.COUNT
    """Clips chosen."""
    seed: int = protocol.SEED
    """Of the choice, and of who gets whose sound in dubbing."""
    protocol: Literal["reconstruction", "dubbing", "both"] = "both"
    """The clip's own sound, another clip's, or both."""
    weights: tuple[str, ...] = (f"IP-LAP={SHIPPED_WEIGHTS}",)
    """Rows of our own, each NAME=FOLDER of weights; table 4 has one for each variant."""
    methods: tuple[str, ...] = ()
    """Rows of others, each NAME=FOLDER of their videos (or FOLDER/reconstruction and FOLDER/dubbing). Any framing."""
    baselines: bool = True
    """Rows for the aligned nearest reference and for static lips."""
    num_references: tuple[int, ...] = (25,)
    """Reference pictures of the renderer; table 5 has a row for each."""
    paper: Literal["LRS2", "LRS3"] = "LRS2"
    """Whose figures of the paper's Table 1 stand beside ours."""
    workers: int = 1
    """Processes that make videos."""
    score: Options = field(default_factory=Options)


def our_methods(config: Config) -> list[Method]:
    """The rows that are made here. Raises UserError if a folder holds no weights, or a row's name is taken."""
    device, weights = config.score.device, named(config.weights, "--weights")
    several = len(config.num_references) > 1
    made = [
        Method((f"{name}, " if len(weights) > 1 else "") + f"N={n}" if several else name, folder, "ours", n, device)
        for name, folder in weights.items()
        for n in config.num_references
    ]
    for method in made:  # a wrong folder is found now, not after the first hour
        Networks.from_weights(method.weights, DubConfig(device="cpu", num_references=method.num_references))
    if config.baselines and made:
        made += [replace(made[0], name=kind, kind=kind) for kind in KINDS if kind != "ours"]
    names = [ORIGINAL, UNTOUCHED, *named(config.methods, "--methods"), *(method.name for method in made)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--weights, --methods: two rows are named {twice[0]}; each needs a name of its own")
    return made


def find_pairs(config: Config, place: str, found: Iterable[str]) -> list[Pair]:
    """Whose video with whose sound, of the clips `found` in the folder."""
    dubbing = place == "dubbing"
    if config.pairs:
        listed = protocol.read_pairs(config.pairs)
        return listed if dubbing else protocol.pairs(list(dict.fromkeys(pair.clip for pair in listed)), dubbing)
    names = list(read_list(config.clip_list) if config.clip_list else found)
    return protocol.pairs(protocol.choose(names, config.count, config.seed), dubbing, config.seed)


def find_others(config: Config, place: str, pairs: list[Pair]) -> Files:
    """Other methods' rows. Raises UserError if a method has none of the videos, or no folder for either protocol."""
    rows: Files = {}
    for method, folder in named(config.methods, "--methods").items():
        own = folder / place
        if not own.is_dir():
            if config.protocol == "both":
                raise UserError(f"--methods {method}: there is no {own}; or choose one --protocol")
            own = folder
        rows[method] = {**protocol.match([pair.name for pair in pairs], protocol.index(own, "--methods"))}
        if not rows[method]:
            raise UserError(f"--methods {method}: no file in {own} is named like a clip, such as {pairs[0].name}")
    return rows


def plan(config: Config, place: str, found: dict[str, Path], ours: list[Method]) -> Plan:
    """All that a user can have got wrong is found here, before any video is made. Writes the list of pairs.

    Args:
        config: of the table.
        place: reconstruction or dubbing.
        found: clip -> video of the folder.
        ours: rows to make.
    """
    pairs = find_pairs(config, place, found)
    protocol.write_pairs(config.output / f"{place}_pairs.txt", pairs)
    clips = sorted({name for pair in pairs for name in (pair.clip, pair.sound)})
    originals = {clip: found[name] for clip, name in match(clips, found, "--clip-list or --pairs").items()}
    first = UNTOUCHED if place == "dubbing" else ORIGINAL
    files: Files = {first: {pair.name: originals[pair.clip] for pair in pairs if pair.clip in originals}}
    files |= find_others(config, place, pairs) | {method.name: {} for method in ours}
    jobs = [
        Job(m, p.name, originals[p.clip], originals[p.sound], config.output / place / m.name / f"{p.name}.mp4")
        for m in ours  # one after the other: a process keeps the networks of one
        for p in pairs
        if originals.keys() >= {p.clip, p.sound}
    ]
    return pairs, originals, files, jobs


def score_protocol(place: str, plan: Plan, workers: int, scorers: Scorers) -> list[Row]:
    """Makes the videos, then scores clip by clip through all methods: each original is read and tracked once."""
    pairs, originals, files, jobs = plan
    for job, why in tqdm(make_all(jobs, workers), f"{place}: making", len(jobs), unit="video"):
        files[job.method.name][job.name] = why or job.output

    compare = place == "reconstruction"
    scores: dict[str, list[ClipScore]] = {row: [] for row in files}
    pools: dict[str, Pools] = {row: {} for row in files}
    for pair in tqdm(pairs, f"{place}: scoring", unit="clip"):
        reason, track, wav = "", None, np.zeros(0, np.float32)
        try:
            if lacking := [name for name in (pair.clip, pair.sound) if name not in originals]:
                raise UserError(f"no original named {lacking[0]}")
            track = track_faces(Video(originals[pair.clip]))
            wav = sound_of(originals[pair.sound], None if pair.clip != pair.sound else len(track.found))
        except Exception as error:
            reason, track = reason_of(error), None
        for row, videos in files.items():
            video = videos.get(pair.name, "no video of that name, or several")
            if track and isinstance(video, Path):
                score = scorers.score(pair.name, originals[pair.clip], track, video, wav, pools[row], compare)
            else:
                score = ClipScore(pair.name, wanted=frames_for_samples(len(wav)), reason=reason or str(video))
            scores[row].append(score)
    return [row_of(row, done, over_all(pools[row])) for row, done in scores.items()]


def over_all(pools: Pools) -> dict[str, float]:
    """Column -> value of all frames of all clips together."""
    kinds = {"FID": fid, "CSIM": lambda a, b: float(a.mean @ b.mean)}
    return {column: kinds[column](*pool) for column, pool in pools.items()}


def remarks(rows: list[Row]) -> list[str]:
    """What was noted of single clips, each once for a method, with the clips that it is about."""
    about: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for score in row.clips:
            about[score.note and f"{row.name}: {score.note}"].append(score.clip)
    about.pop("", None)
    return [f"{note} ({first}{f' and {len(more)} more' * bool(more)})" for note, (first, *more) in about.items()]


def run(key: str, config: Config) -> None:
    """Prints and writes a table, one for each protocol."""
    at_least(1, workers=config.workers)
    places = ("reconstruction", "dubbing") if config.protocol == "both" else (config.protocol,)
    if config.output.resolve().is_relative_to(config.videos.resolve()):
        raise UserError(f"--output: {config.output} lies in --videos, where its videos would pass for originals")
    tables.output_folder(config.output)
    found, ours = protocol.index(config.videos, "--videos"), our_methods(config)
    plans = {place: plan(config, place, found, ours) for place in places}
    options, scorers = config.score, Scorers(config.score)
    for line in scorers.missing:
        print(line, file=sys.stderr)
    for place, planned in plans.items():
        dubbing, rows = place == "dubbing", score_protocol(place, planned, config.workers, scorers)
        theirs = f"{key} {config.paper}" if key == "table1" else key
        paper = tables.published(theirs)
        for row in paper:  # the paper's sync score is of dubbing, all else of reconstruction
            row.cells = {c: v for c, v in row.cells.items() if (c == "LSE-C") == dubbing}
        paper = [row for row in paper if row.cells]
        compared = (
            f"pictures: {'the face box' if options.crop == 'face' else 'full frame'}; LipLMD: {options.points} points, "
            f"{options.norm}, scale {options.scale}; CSIM: {options.csim}, {options.pairs} pairs"
        )
        notes = [
            f"clips: {len(rows[0].clips)}, frames: {sum(s.frames for s in rows[0].clips)} [95 % interval over clips]; "
            f"LSE: {options.sync} protocol",
            "articulation, jitter: against the source video, which says something else" if dubbing else compared,
            *[f"(paper): {theirs} as printed; it names neither its clips nor its variants"] * bool(paper),
            *(line for line in scorers.missing if line.startswith("LSE") or not dubbing),
            "frames without a face: " + ", ".join(f"{r.name} {sum(s.faceless for s in r.clips)}" for r in rows),
            *remarks(rows),
        ]
        Table(f"{key}, {place}", [*rows, *paper], notes).publish(config.output, f"{key}_{place}")


@dataclass(frozen=True)
class Table4(Config):
    """Ablation of stage 2: weights trained without warping, without audio, and in full, NAME=FOLDER each."""

    protocol: Literal["reconstruction", "dubbing", "both"] = "reconstruction"
    baselines: bool = False


@dataclass(frozen=True)
class Table5(Table4):
    """How many reference pictures are worth their time."""

    num_references: tuple[int, ...] = (1, 5, 10, 25)
