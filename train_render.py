"""Trains stage 2, landmarks and references to pictures: python train_render.py --cache DIR --run DIR

Repeat the command to continue. Paper section 3.2. On several GPUs: torchrun --nproc-per-node 4 -- train_render.py ...
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.utils import flow_to_image

from checkpoints import registry
from datasets.clip_cache import ClipCache
from datasets.render_dataset import RenderDataset
from datasets.sampling import AugmentConfig, SamplingConfig
from datasets.splits import SplitConfig, split
from losses.adversarial import discriminator_loss
from losses.lite import LiteRenderLoss, LiteRenderLossConfig, initial_motion_loss
from losses.perceptual import LAYERS, VGG19
from losses.render import RenderLoss, RenderLossConfig
from metrics.image_quality import LPIPS, psnr, ssim
from models import weights
from models.configs import RendererConfig
from models.discriminator import Discriminator
from models.lite import LITE
from models.lite.renderer import LiteRendererConfig
from models.renderer import RendererOutput
from runtime.command_line import SettingError, UserError, naming, run
from training.batches import Batch, Scalars, to_device
from training.config import TrainConfig, chosen_preset, with_sizes_of
from training.engine import Engine
from training.loop import Trainer, Validation, train


@dataclass(frozen=True, kw_only=True)
class TrainRenderConfig(SplitConfig, TrainConfig):
    """Trains the renderer on a clip cache. The same command again continues the run."""

    CHANGEABLE = TrainConfig.CHANGEABLE | {"vgg", "alignment_steps"}
    MAY_BE_ZERO = TrainConfig.MAY_BE_ZERO | {"initial_motion_steps", "alignment_steps", "model.candidates"}

    model: RendererConfig = RendererConfig()
    loss: RenderLossConfig = RenderLossConfig()
    sampling: SamplingConfig = SamplingConfig()
    num_references: int = 3
    """Reference images per sample, N."""
    discriminator_width: int = 64
    """Channels of the discriminator's first layer, doubled three times."""
    initial_motion_steps: int = 0
    """lite: steps that train only the initial motion, in RUN/initial_motion, before the renderer's own --steps."""
    initial_motion_decay: float = 0.003
    """L2 penalty in dB on the correction of the initial motion, which would overfit the training identities."""
    alignment_steps: int = 0
    """Number of first steps that train only the alignment; none with --init."""
    val_samples: int = 64
    """Number of fixed validation samples, spread over the clips."""
    vgg: Path | None = None
    """VGG-19 weights (default: those in checkpoints/)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = vars(self.model)
        for name in ("size", "deep", "alignment_deep"):
            if sizes[name] % 4:
                raise SettingError(f"model.{name}", f"{sizes[name]} is not a multiple of 4")
        for name in ("num_frames", "kernel"):
            if sizes[name] % 2 == 0:
                raise SettingError(f"model.{name}", f"{sizes[name]} is not odd")
        layers = self.loss.layers
        if not layers or not set(layers) <= set(LAYERS):
            raise SettingError("loss.layers", f"({' '.join(map(str, layers))}) are not some of {LAYERS}")
        if not any(self.loss.weights.values()):
            raise SettingError("loss", "all weights are 0; give at least one term a weight")


PRESETS = {
    "lite": TrainRenderConfig(
        model=LiteRendererConfig(),
        loss=LiteRenderLossConfig(),
        sampling=SamplingConfig(
            balance="speaker",
            samples_per_epoch=6400,
            augment=AugmentConfig(flip=0.5, colour=0.1),
        ),
        num_references=5,
        discriminator_width=24,
        initial_motion_steps=15_000,
        batch=4,
        learning_rate=5e-4,
        warmup_steps=200,
        clip_norm=1.0,
    ),
    "paper": TrainRenderConfig(
        preset="paper",
        steps=143_000,
        alignment_steps=11_937,  # 25 epochs of LRS2, as released
        batch=96,
        ema=0.0,
    ),
}


def find_vgg(config: TrainRenderConfig) -> VGG19:
    """Loads the VGG-19 of the perceptual loss. Raises UserError if its weights are missing or damaged."""
    path = config.vgg or registry.find("vgg19")
    if path is None:
        raise UserError(f"{registry.how_to_get('vgg19')}, or name a file with --vgg")
    with registry.reading(path, "VGG-19"):
        return VGG19(torch.load(path, map_location="cpu", weights_only=True), config.loss.layers)


class InitialMotionTrainer(Trainer):
    """Trains the lite initial motion by the PSNR of the lower halves of each warped reference and of their average."""

    name = "initial_motion"

    def train_batch(self, batch: Batch) -> Scalars:
        loss = self.loss(self.parallel, batch)
        self.engine.backward(loss)
        return {"L": loss}

    def loss(self, motion: Any, batch: Batch) -> Tensor:
        images = batch["reference_images"]
        output = motion(batch["landmarks"], batch["reference_landmarks"], images, batch["masked_target"])
        lower = np.s_[..., images.shape[-1] // 2 :, :]
        return initial_motion_loss(
            LITE.warp(images, LITE.grid(output.flow)[lower]),  # (B, N, 3, S/2, S)
            output.weight[lower],
            batch["target"][lower],
            self.network.correction.weight,
            self.config.initial_motion_decay,
        )

    def validate(self, network: Any, example: Batch) -> Validation:
        return {"L": self.loss(network, example).item()}, lambda: {}


class Generator(nn.Module):
    """The renderer with its loss: one module, so that DistributedDataParallel sees which parameters a step trains."""

    def __init__(self, renderer: nn.Module, loss: RenderLoss):
        super().__init__()
        self.renderer = renderer
        self.loss = loss

    def forward(self, batch: Batch, warming_up: bool) -> tuple[Scalars, Tensor]:
        """Returns the losses and the detached face (B, 3, H, W)."""
        output = draw(self.renderer, batch)
        losses = self.loss(output.face, output.warped_reference, batch["target"], warming_up)
        return losses, output.face.detach()


@dataclass
class RenderTrainer(Trainer):
    """Generator step, discriminator step and validation of stage 2."""

    vgg: VGG19 | None = None
    """None if no term of the loss needs it."""
    name = "renderer"
    export = staticmethod(weights.save)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.config
        engine = self.engine
        # Without warping, or without a loss on it, the alignment has no warm-up: everything trains from the start.
        if config.model.use_warping and config.loss.warp and not config.init:
            self.warm_up_steps = config.alignment_steps
        if self.warm_up_steps:
            self.say(f"the first {self.warm_up_steps} steps train the alignment alone")
        discriminator = None
        if config.loss.needs_discriminator:
            discriminator = Discriminator(config.discriminator_width).to(engine.device)
            self.networks["discriminator"] = discriminator
            group = {"name": "discriminator", "params": discriminator.parameters(), "betas": (0.5, 0.999)}
            self.optimiser.add_param_group(group)
            self.discriminator = engine.parallel(discriminator)
        loss_class = LiteRenderLoss if isinstance(config.loss, LiteRenderLossConfig) else RenderLoss
        self.loss = loss_class(config.loss, self.vgg, discriminator, config.model.use_warping)
        self.generator = engine.parallel(Generator(self.network, self.loss), partly_trained=True)
        alexnet = registry.find("lpips_alex")
        self.lpips = LPIPS("alex", alexnet).to(engine.device) if alexnet else None

    def train_batch(self, batch: Batch) -> Scalars:
        warming_up = self.step < self.warm_up_steps
        with self.engine.autocast():
            losses, face = self.generator(batch, warming_up)
        self.engine.backward(losses["L"])
        if self.config.loss.needs_discriminator and not warming_up:
            with self.engine.autocast():
                losses["L_D"] = discriminator_loss(self.discriminator, face, batch["target"])
            self.engine.backward(losses["L_D"])
        return losses

    def validate(self, network: Any, example: Batch) -> Validation:
        """Scores a sample: PSNR, SSIM, LPIPS and the distances of the loss. Shows a row of pictures."""
        with self.engine.autocast():
            output = draw(network, example)
            losses = self.loss(output.face, output.warped_reference, example["target"])
        pictures = output.face.float(), example["target"]
        scores = {"psnr": psnr(*pictures), "ssim": ssim(*pictures), **losses}
        if self.lpips is not None:
            scores["lpips"] = self.lpips(*pictures)
        numbers = {name: score.item() for name, score in scores.items() if name not in ("L", "L_g")}
        numbers["selection"] = numbers.get("L_r", -numbers["psnr"])
        title = f"sketch, references, motion, warped, output, target/{example['name'][0]} frame {example['frame'][0]}"
        return numbers, lambda: {title: picture_row(example, output)}


def draw(renderer: Any, batch: Batch) -> RendererOutput:
    return renderer(
        batch["masked_target"],
        batch["target_sketches"].expand(-1, -1, 3, -1, -1),
        batch["reference_images"],
        batch["reference_sketches"].expand(-1, -1, 3, -1, -1),
        batch["mel"],
        batch["landmarks"],
        batch["reference_landmarks"],
    )


def picture_row(batch: Batch, output: RendererOutput) -> Tensor:
    """Puts the pictures of the first sample side by side: (3, H, W * n), RGB in [0, 1]."""
    sketches = batch["target_sketches"][0]
    pictures = [sketches[len(sketches) // 2].expand(3, -1, -1), *batch["reference_images"][0]]
    if output.motion:
        pictures += [*flow_to_image(output.motion.flow[0].float()) / 255]
    pictures += [output.warped_reference[0], output.face[0], batch["target"][0]]
    return torch.cat(pictures, dim=2).clamp(0, 1)


def trainers(config: TrainRenderConfig, engine: Engine) -> Iterator[Trainer]:
    """Yields the trainer of the initial motion (lite), then the renderer's.

    Raises:
        UserError: data and networks do not fit together.
    """
    with naming("--init"):
        model = weights.load(config.init, "render") if config.init else weights.build(config.model)
    config = with_sizes_of(config, PRESETS[config.preset], model.config)
    with naming("--cache"):
        cache = ClipCache(config.cache, config.model.size)
    clips = split(cache.names, config)
    if engine.is_main:
        print(clips)
    dataset = partial(
        RenderDataset,
        num_frames=config.model.num_frames,
        num_references=config.num_references,
        seed=config.seed,
        speakers=clips.speakers,
        candidates=getattr(config.model, "candidates", 0),
    )
    data = dataset([cache.open(name) for name in clips.train], config=config.sampling)
    examples = []
    if engine.is_main:  # only the main process validates
        val = clips.val or clips.train  # a single clip serves for both
        fixed = dataset([cache.open(name) for name in val], config=SamplingConfig(samples_per_epoch=config.val_samples))
        for i in range(config.val_samples):
            examples.append(to_device(default_collate([fixed[i]]), engine.device))

    # A missing file must not be noticed after the hours that the initial motion takes.
    vgg = find_vgg(config).to(engine.device) if config.loss.needs_vgg else None
    motion = getattr(model, "initial_motion", None)
    if motion is not None and config.initial_motion_steps and not config.sampling.overfit:
        motion_config = replace(config, run=config.run / "initial_motion", steps=config.initial_motion_steps)
        trainer = InitialMotionTrainer(motion, data, examples, motion_config, engine)
        yield trainer
        motion.load_state_dict(trainer.average.state_dict())  # the renderer gives it no gradient
    yield RenderTrainer(model, data, examples, config, engine, vgg)


def main(config: TrainRenderConfig) -> None:
    train(trainers, config)


if __name__ == "__main__":
    run(main, TrainRenderConfig, default=chosen_preset(PRESETS))
