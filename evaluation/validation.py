"""How good are these weights, from the clip cache alone: each stage against baselines that need no network.

Stage 1: lips against static lips, lips at the wrong time and a ridge regression; and stage 1 with the head of another
moment, as in dubbing. Stage 2: the face crop against the aligned nearest reference, with true, predicted and static
landmarks. Quick enough to choose between training runs; the tables of the paper are scored on finished videos instead.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from checkpoints import registry
from datasets.clip_cache import Clip, ClipCache
from datasets.splits import SplitConfig, match, read_list, split
from evaluation import baselines
from evaluation.protocol import named
from evaluation.tables import ClipScore, Row, Table, bootstrap, output_folder, published, row_of
from face.compositing import contour
from face.crop import SIZE, to_crop, to_frame
from face.landmarks import CONTENT, LIP_SLICE, with_content
from face.references import lip_openness, spread_over_openness
from face.tracking import fill_gaps
from media.audio import FPS, mel_windows
from media.timing import window_frames
from metrics.image_quality import LPIPS, psnr, ssim
from metrics.lip_motion import landmark_distance, motion, nan_mean, silent_frames
from networks import NUM_LANDMARK_REFERENCES, SHIPPED_WEIGHTS, DubConfig, Networks, to_tensor
from runtime.command_line import UserError, at_least


@dataclass(frozen=True)
class Config:
    """Scores weights on clips of a cache, beside baselines without a network."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    stage: Literal["1", "2", "both"] = "both"
    """1 is landmarks only."""
    frames: int = 40
    """Frames of each clip that stage 2 draws, evenly spread; references themselves are never scored."""
    num_references: int = DubConfig.num_references
    """Reference pictures of the renderer (the baseline chooses from 25)."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    """Which clips to score: those of --val-list (speaker=NAME behind one groups it by person), or those that a training
    with the same flags validates on. With --train-list there is a ridge regression, which learns from its clips."""
    output: Path | None = None
    """Folder for the tables in five formats, with the figures of every clip."""


VARIANTS = {
    "stage 1": f"LipLMD: 40 mesh points over the crop's side; Landmark Error: 57 points, pixels of the {SIZE} crop",
    "stage 2": "face crop; lower half: all of it; pasted: the lower half inside the face's contour, the rest true",
}
Scores = dict[str, dict[str, float]]  # row -> column -> value


class Faces:
    """The frames of a clip that show a face, with everything stage 1 hears and sees."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self.frames = clip, np.flatnonzero(clip.found)  # (F,) indices into the clip
        self.landmarks, self.boxes = clip.landmarks_in_frame[self.frames], clip.boxes[self.frames]  # (F, 131, 2) (F, 4)
        self.openness = lip_openness(self.landmarks, self.boxes[:, 3] - self.boxes[:, 1])  # (F,)
        # (15,) positions in `frames` of stage 1's references
        self.listened = spread_over_openness(self.openness, NUM_LANDMARK_REFERENCES)

    def in_crop(self, landmarks_in_frame: np.ndarray) -> np.ndarray:
        return to_crop(landmarks_in_frame, self.boxes)

    def error(self, landmarks_in_frame: np.ndarray, part: slice) -> float:
        """Mean distance of a part of the points (F, 131, 2) from the true ones, over the crop's side."""
        guess, truth = (self.in_crop(points)[:, part] for points in (landmarks_in_frame, self.landmarks))
        return nan_mean(landmark_distance(guess, truth))

    def static(self) -> np.ndarray:
        """(F, 131, 2) in frame."""
        return baselines.static_lips(self.landmarks, self.landmarks[self.listened])

    def heard(self) -> np.ndarray:
        """(F, D) inputs of the ridge regression."""
        return baselines.heard_around(self.clip.mel, self.frames)

    def change(self) -> np.ndarray:
        """(F, 57 * 2) that the ridge regression is to find: jaw and lips against static ones, in crop coordinates."""
        change = self.in_crop(self.landmarks) - self.in_crop(self.static())
        return change[:, CONTENT].reshape(len(change), -1)


def predict(networks: Networks, faces: Faces, other_pose: bool = False, mel: np.ndarray | None = None) -> np.ndarray:
    """Stage 1 as in dubbing, on the clip's own sound (or `mel`, (80, C)): landmarks in frame (F, 131, 2).

    With `other_pose` the face moves as at another moment, as it does in dubbing, so that the pose can't tell the mouth;
    lips and jaws are then moved onto the frame's pose.
    """
    seen = faces.clip.landmarks_in_crop[fill_gaps(faces.clip.found)]
    moving = baselines.half_a_clip_later(seen) if other_pose else seen
    own = seen[faces.frames]
    mel = faces.clip.mel if mel is None else mel
    predicted = networks.predict_landmarks(moving, own[faces.listened], mel)[faces.frames]
    if other_pose:
        predicted = with_content(own, baselines.moved_content(predicted, own))
    return to_frame(predicted, faces.boxes)


def guess_lips(networks: Networks, faces: Faces, ridge: baselines.Ridge | None) -> dict[str, np.ndarray]:
    """Row -> landmarks in frame (F, 131, 2)."""
    static, later = faces.static(), baselines.half_a_clip_later(faces.landmarks)
    guesses = {
        "ours": predict(networks, faces),
        "ours, pose of another moment": predict(networks, faces, other_pose=True),
        "static lips": static,
        "shifted lips": with_content(static, baselines.moved_content(later, faces.landmarks)),
    }
    if ridge:
        change = ridge(faces.heard()).reshape(len(static), -1, 2)
        content = faces.in_crop(static)[:, CONTENT] + change
        guesses["ridge regression"] = with_content(static, to_frame(content, faces.boxes))
    return guesses | {"original": faces.landmarks}


def score_lips(faces: Faces, guesses: dict[str, np.ndarray]) -> Scores:
    """Every guess of the landmarks in frame (F, 131, 2) against the true ones."""
    silent = silent_frames(faces.clip.mel, faces.clip.num_frames)[faces.frames]
    return {
        row: {
            "LipLMD": faces.error(guess, LIP_SLICE),
            "Landmark Error": faces.error(guess, CONTENT) * SIZE,
            **motion(guess, faces.boxes, silent, faces.landmarks, faces.boxes),
        }
        for row, guess in guesses.items()
    }


def score_faces(
    networks: Networks, faces: Faces, guesses: dict[str, np.ndarray], frames: int, distance: LPIPS | None
) -> Scores:
    """The drawn face crop of some frames against the true one, for every guess of the landmarks.

    All of it, and as it is pasted when dubbing: the lower half inside the face's soft contour. Around the face the crop
    shows a background that does not move with it.
    """
    clip, truth = faces.clip, faces.in_crop(faces.landmarks)
    paster = baselines.NearestReference(networks.landmark_generator, networks.renderer, networks.config)
    drawers = {"nearest reference": paster, "ours": networks}
    others, references = np.arange(len(faces.frames)), {}
    for row, drawer in drawers.items():
        chosen = spread_over_openness(faces.openness, drawer.num_candidates)
        others = np.setdiff1d(others, chosen)
        crops = np.stack([clip.face(int(i)) for i in faces.frames[chosen]])
        references[row] = drawer.encode_references(crops, truth[chosen], faces.boxes[chosen])
    if not len(others):
        return {}
    windows = window_frames(clip.num_frames, networks.renderer.config.num_frames, FPS)[faces.frames]
    position = np.searchsorted(faces.frames, fill_gaps(clip.found))  # frame of the clip -> nearest frame with a face
    scored = others[np.unique(np.linspace(0, len(others) - 1, min(frames, len(others))).astype(int))]
    half = networks.size // 2
    rows: dict[str, dict[str, list[float]]] = {}
    for batch in np.array_split(scored, -(-len(scored) // networks.config.batch_size)):
        crops = np.stack([clip.face(int(i)) for i in faces.frames[batch]])
        target, mel = to_tensor(crops).to(networks.device), mel_windows(clip.mel, faces.frames[batch])
        for name, guess in guesses.items():
            points = faces.in_crop(guess)
            lines = [[networks.sketch(points[j], faces.boxes[j]) for j in position[windows[i]]] for i in batch]
            contours = np.stack([contour(truth[i], points[i], (networks.size, networks.size)) for i in batch])
            contours[:, :half] = 0
            inside = torch.from_numpy(contours)[:, None].to(target)
            for row, drawer in drawers.items():
                drawn, _ = drawer.draw_faces(crops, points[batch], np.array(lines), references[row], mel)
                made = torch.from_numpy(drawn).permute(0, 3, 1, 2).to(networks.device)
                values = rows.setdefault(f"{row}, {name} landmarks", defaultdict(list))
                values["PSNR"] += psnr(made, target).tolist()
                values["SSIM"] += ssim(made, target).tolist()
                values["PSNR lower half"] += psnr(made[:, :, half:], target[:, :, half:]).tolist()
                pasted = target + inside * (made - target)
                values["PSNR pasted"] += psnr(pasted, target).tolist()
                if distance:
                    values["LPIPS"] += distance(made, target).tolist()
                    values["LPIPS pasted"] += distance(pasted, target).tolist()
    return {row: {column: float(np.mean(each)) for column, each in values.items()} for row, values in rows.items()}


def rows_of(clips: dict[str, Scores], groups: dict[str, str]) -> list[Row]:
    """Every row's mean over groups of the mean over their clips, with its interval; NaN counts for nothing."""
    rows = []
    for name in dict.fromkeys(row for scores in clips.values() for row in scores):
        scores = [ClipScore(clip, cells[name]) for clip, cells in clips.items() if name in cells]
        members = [[s.values for s in scores if groups[s.clip] == group] for group in dict.fromkeys(groups.values())]
        columns = dict.fromkeys(column for score in scores for column in score.values)
        means = {c: np.array([nan_mean([v.get(c, np.nan) for v in group]) for group in members]) for c in columns}
        rows.append(Row(name, {c: bootstrap(values) for c, values in means.items()}, scores))
    return rows


def main(config: Config) -> None:
    at_least(1, frames=config.frames)
    output_folder(config.output)
    networks = Networks.from_weights(
        config.weights, replace(DubConfig.for_tables(), device=config.device, num_references=config.num_references)
    )
    cache = ClipCache(config.cache, None if config.stage == "1" else networks.size)
    parts = split(cache.names, config.split)
    if not config.split.val_list:
        print(f"no --val-list: {parts}, as in a training with the same flags")
    if not parts.val:
        raise UserError(f"--cache: no clip of {config.cache} is for validation; name some in --val-list")
    persons = {name: parts.speakers[name] for name in parts.val}
    path = registry.find("lpips_alex")
    distance = LPIPS("alex", path).to(networks.device) if path and config.stage != "1" else None
    if config.stage != "1" and not distance:
        print(registry.missing("LPIPS", "lpips_alex"), file=sys.stderr)
    ridge = None
    if config.split.train_list and config.stage != "2":
        learnt = (faces for faces in map(Faces, map(cache.open, parts.train)) if len(faces.frames))
        ridge = baselines.Ridge((faces.heard(), faces.change()) for faces in learnt)
    stages: dict[str, dict[str, Scores]] = defaultdict(dict)
    left_out = []
    for name in persons:
        faces = Faces(cache.open(name))
        if len(faces.frames) < 2:
            left_out.append(f"{name}: fewer than two frames with a face, left out")
            continue
        guesses = guess_lips(networks, faces, ridge)
        if config.stage != "2":
            stages["stage 1"][name] = score_lips(faces, guesses)
        if config.stage != "1":
            drawn = {"true": faces.landmarks, "predicted": guesses["ours"], "static": guesses["static lips"]}
            if scores := score_faces(networks, faces, drawn, config.frames, distance):
                stages["stage 2"][name] = scores
            else:
                left_out.append(f"{name}: all its frames serve as references, left out of stage 2")
    if not stages:
        raise UserError(f"--cache: no clip for validation can be scored ({left_out[0]}); name others in --val-list")
    for stage, clips in stages.items():
        notes = [
            f"weights {config.weights}; clips: {len(clips)}, persons: {len({persons[name] for name in clips})}; "
            "means over persons of the means over their clips [95 % interval over persons]",
            VARIANTS[stage],
            *left_out,
        ]
        Table(stage, rows_of(clips, persons), notes).publish(config.output, f"{stage.replace(' ', '_')}_over_persons")


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
    output_folder(config.output)
    cache, rows = ClipCache(config.cache, None), []
    names = match(read_list(config.clip_list), cache.names, "--clip-list").values()
    for name, folder in named(config.weights, "--weights").items():
        networks, clips = Networks.from_weights(folder, replace(DubConfig.for_tables(), device=config.device)), []
        for faces in tqdm(map(Faces, map(cache.open, names)), name, len(names)):
            score = ClipScore(faces.clip.name, frames=len(faces.frames), reason="" if len(faces.frames) else "no face")
            if score.frames:
                score.values["Landmark Error"] = faces.error(predict(networks, faces), CONTENT) * SIZE
            clips.append(score)
        rows.append(row_of(name, clips))
    notes = ["mean distance of 17 jaw and 40 lip points in pixels of the 128 crop; the paper does not state its unit"]
    Table("table3", [*rows, *published("table3")], notes).publish(config.output, "table3")
