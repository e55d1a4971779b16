"""How good are these weights, from the clip cache alone: each stage against baselines that need no network.

Stage 1: lips against static lips, lips at the wrong time and a ridge regression. Stage 2: the face crop against the
aligned nearest reference, with true, predicted and static landmarks. Quick enough to choose between training runs; the
tables of the paper are scored on finished videos instead.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import command_line
import inference
from checkpoints import registry
from command_line import UserError
from datasets.clip_cache import Clip, ClipCache
from datasets.splits import match, read_list, speaker_of
from evaluation import baselines
from evaluation.image_quality import LPIPS, psnr, ssim
from evaluation.lip_sync import (
    articulation_ratio,
    correlation,
    jitter,
    landmark_distance,
    motion_in_silence,
    nan_mean,
    silent_frames,
)
from face.crop import to_crop, to_frame
from face.landmarks import LIP_SLICE
from face.references import lip_openness, spread_over_openness
from face.sketch import draw_sketch
from inference import NUM_LANDMARK_REFERENCES, SHIPPED_WEIGHTS, Dubber, fill_gaps, to_tensor, window_frames
from media.audio import FPS, mel_windows

REFERENCES = 25  # pictures that the nearest-reference baseline chooses from


@dataclass(frozen=True)
class Config:
    """Scores weights on clips of a cache, beside baselines without a network."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    val_list: Path
    """Clips to score, one a line (speaker=NAME behind it groups them by person)."""
    train_list: Path | None = None
    """Clips that the ridge regression learns from; without it there is no such row."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    stage: str = "both"
    """1 (landmarks only), 2 or both."""
    frames: int = 40
    """Frames of each clip that stage 2 draws, evenly spread; references themselves are never scored."""
    num_references: int = inference.Config.num_references
    """Reference pictures of the renderer (the baseline chooses from 25)."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    output: Path | None = None
    """JSON file for the figures of every clip."""


Scores = dict[str, dict[str, float]]  # row -> column -> value


@dataclass(frozen=True)
class Faces:
    """The frames of a clip that show a face, with everything stage 1 hears and sees."""

    frames: np.ndarray  # (F,) indices into the clip
    landmarks: np.ndarray  # (F, 131, 2) in pixels of the frame
    boxes: np.ndarray  # (F, 4)
    openness: np.ndarray  # (F,)
    listened: np.ndarray  # (15,) positions in `frames` of stage 1's references

    @classmethod
    def of(cls, clip: Clip) -> "Faces":
        frames = np.flatnonzero(clip.found)
        landmarks, boxes = clip.landmarks_in_frame[frames], clip.boxes[frames]
        openness = lip_openness(landmarks, boxes[:, 3] - boxes[:, 1])
        return cls(frames, landmarks, boxes, openness, spread_over_openness(openness, NUM_LANDMARK_REFERENCES))

    def static(self) -> np.ndarray:
        return baselines.static_lips(self.landmarks, self.landmarks[self.listened])


def clips_of(cache: ClipCache, path: Path, flag: str) -> dict[str, str]:
    """Clip name -> person, of those clips of a list that are in the cache; the others are named on stderr.

    Raises:
        UserError: none is.
    """
    entries = read_list(path, flag)
    found = match(entries, cache.names)
    if not found:
        raise UserError(f"{flag}: no clip of {path} is in the cache {cache.root}; names look like {cache.names[0]}")
    if len(found) < len(entries):
        print(f"{flag}: {len(entries) - len(found)} of {len(entries)} clips are not in the cache", file=sys.stderr)
    return {name: entries[entry].get("speaker", speaker_of(name)) for entry, name in found.items()}


def learn_ridge(cache: ClipCache, names: dict[str, str]) -> baselines.Ridge:
    """The ridge regression on the clips of the training list."""

    def examples() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for clip in map(cache.open, names):
            faces = Faces.of(clip)
            if len(faces.frames):
                change = to_crop(faces.landmarks, faces.boxes) - to_crop(faces.static(), faces.boxes)
                yield (
                    baselines.heard_around(clip.mel, faces.frames),
                    change[:, baselines.CONTENT].reshape(len(change), -1),
                )

    return baselines.Ridge(examples())


def predict(dubber: Dubber, clip: Clip, faces: Faces) -> np.ndarray:
    """Stage 1 as in dubbing, on the clip's own sound: landmarks in frame (F, 131, 2)."""
    in_crop = clip.landmarks_in_crop
    predicted = dubber.predict_landmarks(
        in_crop[fill_gaps(clip.found)], in_crop[faces.frames[faces.listened]], clip.mel
    )
    return to_frame(predicted[faces.frames], faces.boxes)


def score_lips(clip: Clip, faces: Faces, guesses: dict[str, np.ndarray]) -> Scores:
    """Every guess of the landmarks in frame (F, 131, 2) against the true ones."""
    truth = to_crop(faces.landmarks, faces.boxes)
    silent = silent_frames(clip.mel, clip.num_frames)[faces.frames]
    steady = jitter(truth[:, LIP_SLICE])
    scores = {}
    for row, guess in guesses.items():
        in_crop = to_crop(guess, faces.boxes)
        openness = lip_openness(guess, faces.boxes[:, 3] - faces.boxes[:, 1])
        lips = landmark_distance(in_crop[:, LIP_SLICE], truth[:, LIP_SLICE])
        content = landmark_distance(in_crop[:, baselines.CONTENT], truth[:, baselines.CONTENT])
        scores[row] = {
            "LipLMD": nan_mean(lips),
            "landmark error px": nan_mean(content) * 128,
            "openness correlation": correlation(openness, faces.openness),
            "articulation": articulation_ratio(openness, faces.openness),
            "silence": motion_in_silence(openness, silent),
            "jitter": jitter(in_crop[:, LIP_SLICE]) / steady if steady else float("nan"),
        }
    return scores


def score_faces(
    dubber: Dubber, clip: Clip, faces: Faces, guesses: dict[str, np.ndarray], config: Config, distance: LPIPS | None
) -> Scores:
    """The drawn and the pasted face crop of some frames against the true one, for every guess of the landmarks."""
    choice, shown = (spread_over_openness(faces.openness, n) for n in (REFERENCES, config.num_references))
    others = np.setdiff1d(np.arange(len(faces.frames)), np.union1d(choice, shown))
    if not len(others):
        return {}
    scored = others[np.unique(np.linspace(0, len(others) - 1, min(config.frames, len(others))).astype(int))]
    size = dubber.size
    crops = {i: clip.face(int(faces.frames[i])) for i in np.union1d(choice, shown)}
    candidates = np.stack([crops[i] for i in choice]), faces.boxes[choice], faces.landmarks[choice]

    def sketch(landmarks: np.ndarray, box: np.ndarray) -> np.ndarray:
        return draw_sketch(to_crop(landmarks, box), int(box[3] - box[1]), int(box[2] - box[0]), size)

    lines = np.stack([sketch(faces.landmarks[i], faces.boxes[i]) for i in shown])
    features = dubber.encode_references(np.stack([crops[i] for i in shown]), lines)
    windows = window_frames(clip.num_frames, dubber.renderer.config.num_frames, FPS)[faces.frames]
    position = np.searchsorted(faces.frames, fill_gaps(clip.found))  # frame of the clip -> nearest frame with a face
    rows: dict[str, list[list[float]]] = defaultdict(list)
    columns = ["PSNR", "PSNR lower half", "SSIM", *(["LPIPS"] if distance else [])]
    for batch in np.array_split(scored, -(-len(scored) // dubber.batch_size)):
        truth = np.stack([clip.face(int(faces.frames[i])) for i in batch])
        target = to_tensor(truth).to(dubber.device)
        for name, guess in guesses.items():
            pasted = [
                baselines.paste_nearest(t, faces.boxes[i], guess[i], *candidates)
                for t, i in zip(truth, batch, strict=True)
            ]
            lines = np.stack([[sketch(guess[j], faces.boxes[j]) for j in position[windows[i]]] for i in batch])
            drawn, _ = dubber.draw_faces(truth, lines, features, mel_windows(clip.mel, faces.frames[batch]))
            for row, made in (
                ("nearest reference", to_tensor(np.stack(pasted))),
                ("ours", torch.from_numpy(drawn).permute(0, 3, 1, 2)),
            ):
                made = made.to(dubber.device)  # noqa: PLW2901
                half = size // 2
                values = [psnr(made, target), psnr(made[:, :, half:], target[:, :, half:]), ssim(made, target)]
                values += [distance(made, target)] if distance else []
                rows[f"{row}, {name} landmarks"] += torch.stack([v.double().cpu() for v in values], 1).tolist()
    return {row: dict(zip(columns, np.mean(values, axis=0).tolist(), strict=True)) for row, values in rows.items()}


def summarise(clips: dict[str, Scores], persons: dict[str, str]) -> dict[str, dict[str, list[float]]]:
    """Row -> column -> [mean over persons of the mean over their clips, mean over clips]. NaN counts for nothing."""
    result: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for row, column in dict.fromkeys((r, c) for scores in clips.values() for r, cells in scores.items() for c in cells):
        by_person: dict[str, list[float]] = defaultdict(list)
        for name, scores in clips.items():
            by_person[persons[name]].append(scores.get(row, {}).get(column, np.nan))
        result[row][column] = [
            nan_mean([nan_mean(v) for v in by_person.values()]),
            nan_mean(np.concatenate(list(by_person.values()))),
        ]
    return result


def show(title: str, summary: dict[str, dict[str, list[float]]]) -> None:
    """Prints a table: mean over persons, and over clips in brackets."""
    columns = list(dict.fromkeys(c for cells in summary.values() for c in cells))
    width = max(map(len, summary))
    print(f"\n{title}: mean over persons (over clips)\n" + " " * width + "".join(f"{column:>22}" for column in columns))
    for row, cells in summary.items():
        values = ("{:.4f} ({:.4f})".format(*cells[c]) if c in cells else "-" for c in columns)
        print(f"{row:<{width}}" + "".join(f"{value:>22}" for value in values))


def main(config: Config) -> None:
    if config.stage not in ("1", "2", "both"):
        raise UserError(f"--stage {config.stage}: 1, 2 or both")
    if config.output:
        command_line.output_parent(config.output, "--output")
    cache = ClipCache(config.cache)
    persons = clips_of(cache, config.val_list, "--val-list")
    dubber = Dubber.from_weights(config.weights, config.device, num_references=config.num_references)
    ridge = None
    if config.train_list:
        trained = clips_of(cache, config.train_list, "--train-list")
        if shared := sorted(trained.keys() & persons.keys()):
            raise UserError(f"--train-list: {shared[0]} is also in --val-list; a clip can be in one of them only")
        ridge = learn_ridge(cache, trained)
    path = registry.find("lpips_alex")
    distance = LPIPS("alex", path).to(dubber.device) if path and config.stage != "1" else None
    if config.stage != "1" and not distance:
        print(registry.missing("lpips_alex", "LPIPS"), file=sys.stderr)
    lips: dict[str, Scores] = {}
    pictures: dict[str, Scores] = {}
    for name in persons:
        clip = cache.open(name)
        faces = Faces.of(clip)
        if len(faces.frames) < 2:
            print(f"{name}: no face in it, left out", file=sys.stderr)
            continue
        static, predicted = faces.static(), predict(dubber, clip, faces)
        guesses = {"ours": predicted, "static lips": static, "shifted lips": baselines.shifted_lips(faces.landmarks)}
        if ridge:
            change = ridge(baselines.heard_around(clip.mel, faces.frames)).reshape(len(static), -1, 2)
            content = to_crop(static, faces.boxes)[:, baselines.CONTENT] + change
            guesses["ridge regression"] = baselines.with_content(static, to_frame(content, faces.boxes))
        guesses["original"] = faces.landmarks
        if config.stage != "2":
            lips[name] = score_lips(clip, faces, guesses)
        if config.stage != "1":
            drawn = {"true": faces.landmarks, "predicted": predicted, "static": static}
            pictures[name] = score_faces(dubber, clip, faces, drawn, config, distance)
    print(f"{len(persons)} clips of {len(set(persons.values()))} persons, weights {config.weights}")
    summaries = {title: summarise(s, persons) for title, s in (("stage 1", lips), ("stage 2", pictures)) if s}
    for title, summary in summaries.items():
        show(title, summary)
    if config.output:
        report = {"persons": persons, "clips": {"stage 1": lips, "stage 2": pictures}, "summary": summaries}
        config.output.write_text(json.dumps(report, indent=1))
