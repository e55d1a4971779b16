"""Trains stage 1, sound to lips and jaw: python train_landmark.py --cache DIR --run DIR

Repeat the command to continue. Paper section 3.1. On several GPUs: torchrun --nproc-per-node 4 -- train_landmark.py ...
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from scipy.io import wavfile
from torch import Tensor
from torch.utils.data import default_collate

from datasets.clip_cache import Clip, ClipCache
from datasets.landmark_dataset import LandmarkDataset, make_sample
from datasets.sampling import Augmentation, AugmentConfig, SamplingConfig
from datasets.splits import SplitConfig, split
from datasets.windows import sample_references, shown_frames, window_starts
from face.crop import SIZE, to_frame
from face.landmarks import INNER_LIPS, LIP_SLICE, OUTER_LIPS
from face.sketch import draw_sketches
from losses.landmark import LandmarkLossConfig, landmark_loss
from losses.lite import LiteLandmarkLossConfig, lite_landmark_loss
from media.audio import COLUMNS_PER_SECOND, FPS, SAMPLE_RATE
from media.griffin_lim import invert_log_mel
from media.timing import evenly_spaced
from media.writer import VideoWriter
from metrics.lip_motion import FaceSequence, motion_scores
from models import weights
from models.configs import LandmarkGeneratorConfig
from models.lite.landmark_generator import LiteLandmarkGeneratorConfig
from networks import LandmarkPredictor
from runtime.command_line import SettingError, naming, run
from training.batches import Batch, Scalars, to_device
from training.config import TrainConfig, chosen_preset, with_sizes_of
from training.engine import Engine
from training.loop import Trainer, Validation, train

VIDEO_FRAMES = 100  # in the video that each validation writes
SHOWN_SIZE = 2 * SIZE  # side of a sketch on display, in pixels
MAX_WINDOWS = 32  # of a validation clip
LIP_PAIRS = (np.concatenate([OUTER_LIPS, INNER_LIPS]) - LIP_SLICE.start).tolist()  # their distances are the opening


@dataclass(frozen=True, kw_only=True)
class TrainLandmarkConfig(SplitConfig, TrainConfig):
    """Trains the landmark generator on a clip cache. The same command again continues the run."""

    model: LandmarkGeneratorConfig = LandmarkGeneratorConfig()
    loss: LandmarkLossConfig = LandmarkLossConfig()
    sampling: SamplingConfig = SamplingConfig()
    num_references: int = 15
    """Reference faces per sample, N_l."""
    val_clips: int = 64
    """Largest number of validation clips, spread evenly over the list; each is predicted as a whole."""

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.model
        if model.architecture == "transformer" and (model.width % 2 or model.width % model.heads):
            raise SettingError(
                "model.width", f"{model.width} must be even and a multiple of --model.heads ({model.heads})"
            )
        if model.dropout >= 1:
            raise SettingError("model.dropout", f"{model.dropout} is not a probability below 1")


PRESETS = {
    "lite": TrainLandmarkConfig(
        model=LiteLandmarkGeneratorConfig(),
        loss=LiteLandmarkLossConfig(),
        sampling=SamplingConfig(
            balance="speaker",
            samples_per_epoch=6400,
            augment=AugmentConfig(flip=0.5, box=0.05, stretch=0.015, sound=1.0, tempo=0.15),
        ),
        steps=40_000,
        batch=16,
        learning_rate=1e-3,
        warmup_steps=200,
        clip_norm=1.0,
        ema=0.9998,
        validate_every=500,
    ),
    "paper": TrainLandmarkConfig(
        preset="paper",
        steps=610_000,
        batch=128,
        ema=0.0,
        # bf16 would round landmarks to half a pixel. The lite networks predict small differences, so they may use it.
        precision="tf32",
    ),
}


class LandmarkTrainer(Trainer):
    """The training step of stage 1, and its validation on clips."""

    name = "landmark_generator"
    export = staticmethod(weights.save)  # type: ignore[assignment]

    def predict(self, network: Any, batch: Batch) -> tuple[Tensor, Tensor, Scalars]:
        """Predicts lips (B, T, 40, 2) and jaws (B, T, 17, 2), and computes the terms of the loss and their sum, "L"."""
        with self.engine.autocast():
            lip, jaw = network(batch["mel"], batch["pose"], batch["reference"])
        landmarks = lip, jaw, batch["lip"], batch["jaw"]
        config = self.config.loss
        if isinstance(config, LiteLandmarkLossConfig):
            return lip, jaw, lite_landmark_loss(*landmarks, config, LIP_PAIRS)
        return lip, jaw, landmark_loss(*landmarks, config)

    def train_batch(self, batch: Batch) -> Scalars:
        _, _, losses = self.predict(self.parallel, batch)
        self.engine.backward(losses["L"])
        return losses

    def validate(self, network: Any, example: Clip) -> Validation:
        """Scores a clip's windows: the loss, and the lips' opening and motion against the truth."""
        windows = whole_clip(example, self.config.model.num_frames, self.config.num_references)
        batch = to_device(windows, self.engine.device)
        lip, jaw, losses = self.predict(network, batch)
        truth = join(batch["pose"], batch["jaw"], batch["lip"])
        predicted = join(batch["pose"], jaw, lip)
        boxes = windows["boxes"].flatten(0, 1).numpy()  # (F, 4)
        face = FaceSequence(to_frame(predicted, boxes), boxes)
        true_face = FaceSequence(to_frame(truth, boxes), boxes)
        motion = motion_scores(face, true_face, silent=np.zeros(len(boxes), bool))
        scores = {
            "L": losses["L"].item(),
            "L_1": losses["L_1"].item(),
            **{name.replace(" ", "_"): score for name, score in motion.items()},
        }
        title = f"true green, predicted red/{example.name}"
        shown = len(truth) * np.arange(1, 4) // 4
        return scores, lambda: {title: np.concatenate(draw(truth[shown], predicted[shown]), axis=1).transpose(2, 0, 1)}

    def write_video(self, network: Any, path: Path) -> None:
        """Writes true sketches in green and predicted ones in red, with the sound."""
        clip = max(self.examples, key=lambda clip: clip.longest_run)
        frames = shown_frames(clip.found, VIDEO_FRAMES)
        references = sample_references(np.random.default_rng(0), clip.found, frames, self.config.num_references)
        truth = clip.crop_landmarks(frames)
        predictor = LandmarkPredictor(network, str(self.engine.device))
        predicted = predictor.predict_landmarks(truth, clip.crop_landmarks(references), clip.mel, first=int(frames[0]))
        start, end = np.array([frames[0], frames[-1] + 1]) * COLUMNS_PER_SECOND // FPS
        sound = path.with_suffix(".wav")
        wavfile.write(sound, SAMPLE_RATE, invert_log_mel(clip.mel[:, start : end + 1]))
        with VideoWriter(path, FPS, (SHOWN_SIZE, SHOWN_SIZE), [(sound, 0.0)]) as writer:
            for picture in draw(truth, predicted):
                writer.write(picture)
        sound.unlink()


def join(pose: Tensor, jaw: Tensor, lip: Tensor) -> ndarray:
    """Joins pose, jaw and lip of windows, (B, T, 74 and 17 and 40, 2), into faces (B*T, 131, 2)."""
    return torch.cat([pose, jaw, lip], dim=2).flatten(0, 1).cpu().numpy()


def whole_clip(clip: Clip, length: int, num_references: int) -> Batch:
    """Cuts a clip into windows of `length` frames, end to end or, in a long clip, spread over it; always the same."""
    starts = window_starts(clip.found, length)
    starts = starts[(starts - starts[0]) % length == 0]  # (B,)
    samples = []
    for start in starts[evenly_spaced(len(starts), MAX_WINDOWS)]:
        window = np.arange(start, start + length)
        rng = np.random.default_rng(int(start))
        references = sample_references(rng, clip.found, window, num_references)
        samples.append(make_sample(clip, window, references, Augmentation(rng, AugmentConfig())))
    return default_collate(samples)


def draw(truth: ndarray, predicted: ndarray) -> ndarray:
    """Draws sketches of landmarks (F, 131, 2), true ones green, predicted ones red: (F, S, S, 3) uint8 RGB."""
    green = draw_sketches(truth, SIZE, SIZE, SHOWN_SIZE)  # (F, S, S)
    red = draw_sketches(predicted, SIZE, SIZE, SHOWN_SIZE)
    return np.stack([red, green, np.zeros_like(red)], axis=-1).astype(np.uint8)


def trainers(config: TrainLandmarkConfig, engine: Engine) -> Iterator[Trainer]:
    """Yields the trainer of a configuration. Raises UserError if data and network do not fit together."""
    with naming("--init"):
        model = weights.load(config.init, "landmark") if config.init else weights.build(config.model)
    config = with_sizes_of(config, PRESETS[config.preset], model.config)
    with naming("--cache"):
        cache = ClipCache(config.cache, None)
    clips = split(cache.names, config)
    if engine.is_main:
        print(clips)
    dataset = partial(
        LandmarkDataset,
        num_frames=config.model.num_frames,
        num_references=config.num_references,
        config=config.sampling,
        seed=config.seed,
        speakers=clips.speakers,
    )
    data = dataset([cache.open(name) for name in clips.train])
    examples = []
    if engine.is_main:  # only the main process validates
        val = clips.val or clips.train  # a single clip serves for both
        examples = dataset([cache.open(val[i]) for i in evenly_spaced(len(val), config.val_clips)]).clips
    yield LandmarkTrainer(model, data, examples, config, engine)


def main(config: TrainLandmarkConfig) -> None:
    train(trainers, config)


if __name__ == "__main__":
    run(main, TrainLandmarkConfig, default=chosen_preset(PRESETS))
