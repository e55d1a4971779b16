"""Trains stage 1, sound to lips and jaw: python train_landmark.py --cache DIR --run DIR (the same again continues)

Paper section 3.1. On several GPUs: torchrun --nproc-per-node 4 -- train_landmark.py ...
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.utils.data import default_collate

from datasets.clip_cache import Clip, ClipCache
from datasets.landmark_dataset import LandmarkDataset, make_sample
from datasets.sampling import Augmentation, AugmentConfig, SamplingConfig
from datasets.splits import SplitConfig, split
from datasets.windows import sample_references, window_starts
from face import fingerprint
from face.crop import SIZE, to_frame
from face.landmarks import EDGES, INNER_LIPS, JAW_SLICE, LIP_SLICE, OUTER_LIPS
from face.references import lip_openness
from losses.landmark import LandmarkLossConfig, landmark_loss
from losses.lite import LiteLandmarkLossConfig, lite_landmark_loss
from metrics.lip_motion import articulation_ratio, closed_f1, correlation, landmark_distance, nan_mean
from models import weights
from models.configs import LandmarkGeneratorConfig
from models.landmark_generator import LandmarkGenerator
from models.lite.landmark_generator import LiteLandmarkGeneratorConfig
from runtime import command_line
from runtime.command_line import UserError
from training.engine import Engine
from training.loop import Batch, Stage, Trainer, to_device, train
from training.options import Options, spread, with_preset, with_sizes_of
from training.run_folder import RunFolder

PICTURES = 6  # validation clips drawn for TensorBoard
WINDOWS = 32  # of a validation clip at most: all of them stay in memory


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains the landmark generator on a clip cache. The same command again continues the run."""

    model: LandmarkGeneratorConfig
    loss: LandmarkLossConfig = field(default_factory=LandmarkLossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    num_references: int = 15
    """Reference faces of a sample, N_l."""
    val_clips: int = 64
    """Validation clips at most, spread over the list; each is predicted whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_batch(min(self.num_references, self.model.num_frames))
        width, heads = self.model.width, self.model.heads
        if self.model.architecture == "transformer" and (width % 2 or width % heads):
            raise UserError(f"--model.width: {width} must be even and a multiple of --model.heads ({heads})")


PRESETS: dict[str, dict[str, Any]] = {
    "lite": {
        "model": LiteLandmarkGeneratorConfig(), "batch": 16, "learning_rate": 1e-3, "warmup_steps": 200,
        "clip_norm": 1.0, "ema": 0.9998, "steps": 40_000, "validate_every": 500,
        "loss": LiteLandmarkLossConfig(),
        "sampling": SamplingConfig(
            balance="speaker", samples_per_epoch=6400,
            augment=AugmentConfig(flip=0.5, box=0.05, stretch=0.015, sound=1.0),
        ),
    },
    "paper": {  # tf32: bf16 would round landmarks to half a pixel; lite's only differ from the references' by a little
        "model": LandmarkGeneratorConfig(), "precision": "tf32", "batch": 128, "steps": 610_000, "ema": 0.0,
    },
}  # fmt: skip


class LandmarkStage(Stage):
    """The training step and the validation of stage 1."""

    name = "landmark_generator"

    def __init__(self, config: Config, model: LandmarkGenerator, engine: Engine, examples: list[Batch]) -> None:
        super().__init__(model, engine, examples, fingerprint.current())
        self.config = config
        self.openings = (np.concatenate([OUTER_LIPS, INNER_LIPS]) - LIP_SLICE.start).tolist()

    def train_step(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        with self.engine.autocast():
            lip, jaw = self.forward(batch["mel"], batch["pose"], batch["reference"])
        losses = self.loss(lip, jaw, batch)
        self.engine.backward(losses["L"])
        return losses

    def loss(self, lip: Tensor, jaw: Tensor, batch: Batch) -> dict[str, Tensor]:
        config = self.config.loss
        if isinstance(config, LiteLandmarkLossConfig):
            return lite_landmark_loss(lip, jaw, batch["lip"], batch["jaw"], config, self.openings)
        return landmark_loss(lip, jaw, batch["lip"], batch["jaw"], config)

    def validate(self, model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Means over clips: L1, error in pixels of a 128-pixel crop, lip openness against the truth."""
        rows, pictures = [], {}
        for number, windows in enumerate(self.examples):
            batch, boxes = to_device(windows, self.engine.device), windows["boxes"].flatten(0, 1).numpy()  # (F, 4)
            with self.engine.autocast():
                lip, jaw = model(batch["mel"], batch["pose"], batch["reference"])
            losses = self.loss(lip, jaw, batch)
            true, predicted = (
                torch.cat([batch["pose"], *rest], dim=2).flatten(0, 1).cpu().numpy()
                for rest in ((batch["jaw"], batch["lip"]), (jaw, lip))
            )  # (F, 131, 2)
            error = landmark_distance(predicted[:, JAW_SLICE.start :], true[:, JAW_SLICE.start :])  # (F,)
            faces, height = [to_frame(points, boxes) for points in (predicted, true)], boxes[:, 3] - boxes[:, 1]
            mine, truth = (lip_openness(face, height, OUTER_LIPS) for face in faces)  # (F,)
            rows.append({
                "L": float(losses["L"]), "L_1": float(losses["L_1"]), "landmark_error_px": SIZE * error.mean(),
                "openness_correlation": correlation(mine, truth), "articulation": articulation_ratio(mine, truth),
                "closed_f1": closed_f1(*(lip_openness(face, height, INNER_LIPS) for face in faces)),
            })  # fmt: skip
            if number in spread(len(self.examples), PICTURES):
                title = f"true green, predicted red, openness over time/{windows['name'][0]} {windows['frame'][0]}"
                pictures[title] = draw(true, predicted, truth, mine)
        numbers = {name: nan_mean([row[name] for row in rows]) for name in rows[0]}
        known = {name: value for name, value in numbers.items() if np.isfinite(value)}  # lips may never close or move
        return {"selection": numbers["L"], **known}, pictures


def whole_clip(clip: Clip, length: int, num_references: int) -> Batch:
    """A clip's frames in windows of `length`, end to end or (a long clip's) spread over it: the same at every call."""
    starts = window_starts(clip.found, length)
    starts = starts[(starts - starts[0]) % length == 0]  # (B,)
    samples: list[Any] = []
    for start in starts[spread(len(starts), WINDOWS)]:
        window = np.arange(start, start + length)
        rng = np.random.default_rng(int(window[0]))
        references = sample_references(rng, clip.found, window, num_references)
        samples.append(make_sample(clip, window, references, Augmentation(rng, AugmentConfig())))
    return default_collate(samples)


def draw(true: np.ndarray, predicted: np.ndarray, truth: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Three frames' landmarks (F, 131, 2), and the openness (F,) over time; true green, predicted red. uint8 RGB."""
    side = 256
    picture = np.full((side, 4 * side, 3), 255, np.uint8)
    for landmarks, openness, colour in ((true, truth, (0, 160, 0)), (predicted, mine, (220, 30, 30))):
        for place, frame in enumerate(len(true) * np.arange(1, 4) // 4):
            lines = (landmarks[frame] + (place, 0))[EDGES] * side
            cv2.polylines(picture, list(lines.astype(np.int32)), False, colour, 1, cv2.LINE_AA)
        x = np.linspace(3 * side, 4 * side - 1, len(openness))
        curve = np.stack([x, side * (1 - openness / max(1.2 * truth.max(), 1e-9))], axis=1)
        cv2.polylines(picture, [curve.astype(np.int32)], False, colour, 1, cv2.LINE_AA)
    return picture


def build(config: Config) -> Trainer:
    """Data, network and loop of a configuration. Raises UserError when they don't fit together."""
    engine = Engine(config)
    model = weights.load(config.init, "landmark") if config.init else weights.build(config.model)
    if config.init:
        fingerprint.check(model.settings, fingerprint.current(), f"--init: {config.init}")
        config = with_sizes_of(config, PRESETS[config.preset]["model"], model.config)
    with command_line.naming("--cache"):
        cache = ClipCache(config.cache, None)
    clips = split(cache.names, config.split)
    if engine.world.is_main:
        print(clips)
    run = RunFolder(config, [*clips.val, "", *clips.test])
    val = config.validation_clips(clips.train, clips.val)
    make_data = partial(
        LandmarkDataset, num_frames=config.model.num_frames, num_references=config.num_references,
        config=config.sampling, seed=config.seed, speakers=clips.speakers,
    )  # fmt: skip
    data = make_data([cache.open(name) for name in clips.train])
    examples: list[Any] = []
    if config.overfit:
        examples = [default_collate([data[i]]) for i in range(min(config.overfit, len(data)))]
    elif engine.world.is_main:  # which alone validates
        usable = make_data([cache.open(val[i]) for i in spread(len(val), config.val_clips)]).clips
        examples = [whole_clip(clip, config.model.num_frames, config.num_references) for clip in usable]
    stage = LandmarkStage(config, model, engine, examples)
    return Trainer(stage, data, config, run)


def main(config: Config) -> None:
    train(build, config)


if __name__ == "__main__":
    command_line.run(main, with_preset(Config, PRESETS))
