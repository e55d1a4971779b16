"""The paper's tables 1, 3, 4 and 5 from a folder of videos and weights."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from command_line import UserError
from datasets.clip_cache import ClipCache
from datasets.splits import read_list
from evaluation import protocol, tables, validation
from evaluation.image_quality import FeaturePool, fid
from evaluation.making import Job, Method, make_all, sound_of
from evaluation.scoring import ClipScore, Options, Scorers
from evaluation.tables import Row, Table, row_of
from inference import SHIPPED_WEIGHTS, Dubber
from media.audio import frames_for_samples

PAPER = ("table1", "table4", "table5")
ORIGINAL, UNTOUCHED = "original", "untouched video, new sound"


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
    """Your own list instead, `video sound` in each line."""
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


def named(values: tuple[str, ...], flag: str) -> dict[str, Path]:
    """NAME=FOLDER words.

    Raises:
        UserError: there is no = in one.
    """
    if wrong := [value for value in values if "=" not in value]:
        raise UserError(f"{flag} {wrong[0]}: write NAME=FOLDER")
    return {name: Path(folder) for name, folder in (value.split("=", 1) for value in values)}


def our_methods(config: Config) -> list[Method]:
    """The rows that are made here."""
    device, several = config.score.device, len(config.num_references) > 1
    made = [
        Method(f"N={n}" if several else name, folder, "ours", n, device)
        for name, folder in named(config.weights, "--weights").items()
        for n in config.num_references
    ]
    if config.baselines:
        first = made[0]
        made += [
            Method(k, first.weights, k, first.num_references, device) for k in ("nearest reference", "static lips")
        ]
    for folder in {method.weights for method in made}:
        Dubber.from_weights(folder, "cpu")  # a wrong folder is found now, not after the first hour
    return made


def score_protocol(config: Config, dubbing: bool, scorers: Scorers) -> list[Row]:
    """Makes the videos, then scores clip by clip through all methods: each original is read and tracked once."""
    place = "dubbing" if dubbing else "reconstruction"
    found = protocol.index(config.videos, "--videos")
    names = list(read_list(config.clip_list, "--clip-list")) if config.clip_list else list(found)
    chosen = protocol.choose(names, config.count, config.seed)
    pairs = protocol.read_pairs(config.pairs) if config.pairs else protocol.pairs(chosen, dubbing, config.seed)
    listed = "".join(f"{pair.clip} {pair.sound}\n" for pair in pairs)
    (config.output / f"{place}_pairs.txt").write_text(listed, encoding="utf-8")
    wanted = sorted({name for pair in pairs for name in (pair.clip, pair.sound)})
    videos = protocol.match(wanted, found)
    if not videos:
        raise UserError(
            f"--videos: {config.videos} has none of {len(wanted)} clips, such as {wanted[0]}; it has {min(found)}"
        )
    clips = [pair.clip for pair in pairs]
    rows: dict[str, dict[str, Path]] = {UNTOUCHED if dubbing else ORIGINAL: videos}
    for name, folder in named(config.methods, "--methods").items():
        rows[name] = protocol.match(
            clips, protocol.index(folder / place if (folder / place).is_dir() else folder, "--methods")
        )
        if not rows[name]:
            raise UserError(f"--methods {name}: no file in {folder} is named like a clip, such as {clips[0]}")
    ours = our_methods(config)
    outputs = {(m.name, clip): config.output / place / m.name / f"{clip}.mp4" for m in ours for clip in clips}
    rows |= {m.name: {clip: outputs[m.name, clip] for clip in clips} for m in ours}
    there = [pair for pair in pairs if pair.clip in videos and pair.sound in videos]
    jobs = [Job(m, p.clip, videos[p.clip], videos[p.sound], outputs[m.name, p.clip]) for p in there for m in ours]
    made = tqdm(make_all(jobs, config.workers), f"{place}: making", len(jobs), unit="video")
    errors = {(job.method.name, job.clip): why for job, why in made if why}

    scores: dict[str, list[ClipScore]] = {name: [] for name in rows}
    pools = {name: (FeaturePool(), FeaturePool()) for name in rows} if scorers.inception and not dubbing else {}
    for clip, sound in tqdm([(p.clip, p.sound) for p in pairs], f"{place}: scoring", unit="clip"):
        reason, track, wav = "" if clip in videos and sound in videos else "no original of that name", None, None
        if not reason:
            try:
                track = scorers.track(videos[clip])
                wav = sound_of(videos[sound], None if clip != sound else len(track.found))
            except UserError as error:
                reason = str(error)
        for name, files in rows.items():
            why = reason or errors.get((name, clip)) or ("" if clip in files else "no video of that name")
            if why or track is None or wav is None:
                wanted = 0 if wav is None else frames_for_samples(len(wav))
                scores[name].append(ClipScore(clip, wanted=wanted, reason=why))
            else:
                pool = pools.get(name)
                scores[name].append(scorers.score(clip, videos[clip], track, files[clip], wav, not dubbing, pool))
    return [row_of(name, done, fid(*pools[name]) if name in pools else None) for name, done in scores.items()]


def run(key: str, config: Config) -> None:
    """Prints and writes a table, one for each protocol."""
    places = ("reconstruction", "dubbing") if config.protocol == "both" else (config.protocol,)
    for name, folder in named(config.methods, "--methods").items():
        if lacking := [place for place in places if len(places) > 1 and not (folder / place).is_dir()]:
            raise UserError(f"--methods {name}: there is no {folder / lacking[0]}; or choose one --protocol")
    config.output.mkdir(parents=True, exist_ok=True)
    scorers = Scorers(config.score)
    for line in scorers.missing:
        print(line, file=sys.stderr)
    for place in places:
        dubbing, options = place == "dubbing", config.score
        rows = score_protocol(config, dubbing, scorers)
        paper = tables.published(f"{key} {config.paper}" if key == "table1" else key) if key in PAPER else []
        for row in paper:  # the paper's sync score is of dubbing, all else of reconstruction
            row.cells = {c: v for c, v in row.cells.items() if (c == "LSE-C") == dubbing}
        notes = [
            f"{len(rows[0].clips)} clips; pictures: {'the face box' if options.crop == 'face' else 'full frame'}; "
            f"LipLMD: {options.points} points, {options.norm} over {options.scale}; CSIM: {options.csim}, "
            f"{options.pairs} pairs; LSE: {options.sync} protocol; [95 % interval over clips]",
            *(line for line in scorers.missing if line.startswith("LSE") or not dubbing),
            "frames without a face: " + ", ".join(f"{r.name} {sum(s.faceless for s in r.clips)}" for r in rows),
            *sorted({f"{row.name}: {s.note}" for row in rows for s in row.clips if s.note}),
            "seconds: " + ", ".join(f"{metric} {spent:.1f}" for metric, spent in scorers.seconds.items()),
        ]
        table = Table(f"{key}, {place}", [*rows, *[row for row in paper if row.cells]], notes)
        table.publish(config.output, f"{key}_{place}")


@dataclass(frozen=True)
class Table4(Config):
    """Ablation of stage 2: weights trained without warping, without audio, and in full, NAME=FOLDER each."""

    protocol: Literal["reconstruction", "dubbing", "both"] = "reconstruction"
    baselines: bool = False


@dataclass(frozen=True)
class Table5(Table4):
    """How many reference pictures are worth their time."""

    num_references: tuple[int, ...] = (1, 5, 10, 25)


@dataclass(frozen=True)
class Table3:
    """Ablation of stage 1 on the clips of a cache: error of the 57 predicted points, in pixels of the 128 crop."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    clip_list: Path
    """Clips to score, one a line."""
    weights: tuple[str, ...]
    """Rows, each NAME=FOLDER of weights: w/ LSTM=... and w/ Transformer=..."""
    output: Path
    """Folder for the table in five formats."""
    device: str = "cpu"
    """cpu, cuda, mps or auto."""


def table3(config: Table3) -> None:
    cache, rows = ClipCache(config.cache), []
    names = validation.clips_of(cache, config.clip_list, "--clip-list")
    for name, folder in named(config.weights, "--weights").items():
        dubber, clips = Dubber.from_weights(folder, config.device), []
        for clip in tqdm(map(cache.open, names), name, len(names)):
            faces = validation.Faces.of(clip)
            if not len(faces.frames):
                clips.append(ClipScore(clip.name, reason="no face"))
                continue
            error = validation.score_lips(clip, faces, {name: validation.predict(dubber, clip, faces)})[name]
            clips.append(ClipScore(clip.name, {"Landmark Error": error["Landmark Error"]}, frames=len(faces.frames)))
        rows.append(row_of(name, clips))
    notes = ["mean distance of 17 jaw and 40 lip points in pixels of the 128 crop; the paper does not state its unit"]
    Table("table3", [*rows, *tables.published("table3")], notes).publish(config.output, "table3")
