"""Trains stage 2, landmarks and references to pictures: python train_render.py --cache DIR --run DIR (again: continues)

Paper section 3.2. On several GPUs: torchrun --nproc-per-node 4 -- train_render.py ...
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.utils import flow_to_image

from checkpoints import registry
from datasets.clip_cache import ClipCache
from datasets.render_dataset import RenderDataset
from datasets.sampling import AugmentConfig, SamplingConfig
from datasets.splits import SplitConfig, split
from face import fingerprint
from losses.adversarial import discriminator_loss
from losses.lite import LiteRenderLoss, LiteRenderLossConfig, initial_motion_loss
from losses.perceptual import LAYERS, VGG19, load_vgg
from losses.render import RenderLoss, RenderLossConfig
from metrics.image_quality import LPIPS, psnr, ssim
from models import weights
from models.configs import DiscriminatorConfig, RendererConfig
from models.discriminator import Discriminator
from models.lite.initial_motion import InitialMotion
from models.lite.renderer import LiteRenderer, LiteRendererConfig
from models.lite.sampling import LITE
from models.motion_field import sampling_grid, warp
from models.renderer import Renderer, RendererOutput
from runtime import command_line
from runtime.command_line import UserError
from training.engine import Engine
from training.loop import Batch, Stage, Trainer, to_device, train
from training.options import Options, flag, spread, with_preset, with_sizes_of
from training.run_folder import RunFolder

PICTURES = 6  # validation samples shown in TensorBoard


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains the renderer on a clip cache. The same command again continues the run."""

    model: RendererConfig
    discriminator: DiscriminatorConfig
    loss: RenderLossConfig = field(default_factory=RenderLossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    num_references: int = 3
    """Reference images of a sample, N."""
    val_samples: int = 64
    """Fixed validation samples, spread over the clips."""
    initial_motion_epochs: float = 0.0
    """Initial epochs that train only the initial motion (lite), by the PSNR (lower half) of each warped reference and
    of their average."""
    initial_motion_decay: float = 0.003
    """L2 penalty on the correction of the initial motion, in dB; without it the layer overfits the training
    identities."""
    vgg: Path | None = None
    """VGG-19 weights (default: those in checkpoints/)."""
    lpips: Path | None = None
    """AlexNet weights for LPIPS in validation (default: those in checkpoints/, else there is no LPIPS)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        model, loss = self.model, self.loss
        for name, needed, fits in (
            ("num_frames", "odd", model.num_frames % 2), ("kernel", "odd", model.kernel % 2),
            ("size", "even", model.size % 2 == 0), ("deep", "a multiple of 4", model.deep % 4 == 0),
            ("alignment_deep", "a multiple of 4", model.alignment_deep % 4 == 0),
            ("sketch_channels", "at most 3", model.sketch_channels <= 3),
        ):  # fmt: skip
            if not fits:
                raise UserError(f"{flag('model.' + name)}: {getattr(model, name)} is not {needed}")
        if not loss.vgg_layers or not set(loss.vgg_layers) <= set(LAYERS):
            raise UserError(f"--loss.layers: ({' '.join(map(str, loss.vgg_layers))}) are not some of {LAYERS}")
        pixel = loss.pixel if isinstance(loss, LiteRenderLossConfig) else 0.0
        alignment = model.use_warping and (loss.warp or pixel)
        if not (alignment or loss.perceptual or loss.style or pixel or loss.needs_discriminator):
            raise UserError("--loss: no term that trains has a weight; give --loss.perceptual or --loss.pixel one")
        if model.use_warping and loss.warmup_epochs and not alignment:
            raise UserError(f"--loss.warmup-epochs: {loss.warmup_epochs} epochs would train the alignment alone, but "
                            "--loss.warp and --loss.pixel are 0; raise one of them, or have no warm-up")  # fmt: skip
        self.check_batch(1)  # the audio encoder's


PRESETS: dict[str, dict[str, Any]] = {
    "lite": {
        "num_references": 5, "model": LiteRendererConfig(), "discriminator": DiscriminatorConfig(width=24), "batch": 4,
        "learning_rate": 5e-4, "warmup_steps": 200, "clip_norm": 1.0,
        "sampling": SamplingConfig(
            balance="speaker", samples_per_epoch=6400, augment=AugmentConfig(flip=0.5, colour=0.1)
        ),
        "loss": LiteRenderLossConfig(), "initial_motion_epochs": 8,
    },
    "paper": {"model": RendererConfig(), "discriminator": DiscriminatorConfig(), "batch": 96, "ema": 0.0},
}  # fmt: skip


def find_vgg(config: Config) -> VGG19:
    """VGG-19 from --vgg, or from the folder of external weights. Raises UserError when it is missing or damaged."""
    path = config.vgg or registry.find("vgg19")
    if path is None or not path.is_file():
        where = f"{path} is not a file" if path else f"none in {' or '.join(map(str, registry.folders()))}"
        raise UserError(
            f"--vgg: the perceptual loss needs VGG-19's weights, and {where}; name the file that you have, or download "
            f"{registry.FILES['vgg19'].source} and put it into {registry.FOLDER}/ (python -m checkpoints --download "
            "vgg19 does both)"
        )
    with registry.reading(path, "VGG-19"):
        return load_vgg(path, config.loss.vgg_layers)


class RenderStage(Stage):
    """Generator step, discriminator step and validation of stage 2."""

    name = "renderer"

    def __init__(self, config: Config, model: Renderer, engine: Engine, examples: list[Batch]) -> None:
        super().__init__(model, engine, examples, fingerprint.current(config.model.size))
        self.config = config
        self.start = model.initial_motion if isinstance(model, LiteRenderer) else None
        vgg = find_vgg(config).to(engine.device) if config.loss.needs_vgg else None
        self.discriminator = None
        if config.loss.needs_discriminator:
            self.discriminator = Discriminator(config.discriminator).to(engine.device)
            self.networks["discriminator"] = self.discriminator
            self.optimisers["discriminator"] = engine.adam(self.discriminator, betas=(0.5, 0.999))
        use_warping = config.model.use_warping
        if isinstance(config.loss, LiteRenderLossConfig):
            self.loss = LiteRenderLoss(config.loss, vgg, self.discriminator, use_warping)
        else:
            self.loss = RenderLoss(config.loss, vgg, self.discriminator, use_warping)
        self.metrics: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim}
        if alex := config.lpips or registry.find("lpips_alex"):
            self.metrics["lpips"] = LPIPS("alex", alex).to(engine.device)

    def train_step(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        if self.start is not None and epoch < self.config.initial_motion_epochs and not self.config.overfit:
            self.warming_up, losses = True, {"L": self.start_loss(self.start, batch)}
            self.engine.backward(losses["L"])
            return losses
        if self.start is not None:  # from now on it is what the average has come to, which so stays as it is
            self.start.load_state_dict(self.average.get_submodule("initial_motion").state_dict())
        # Without warping there is no alignment to warm up: everything is trained from the start, both sides.
        self.warming_up = self.config.model.use_warping and epoch < self.config.loss.warmup_epochs
        with self.engine.autocast():
            output = self.draw(self.forward, batch)
            losses = self.loss(output.face, output.warped_reference, batch["target"], self.warming_up)
        self.engine.backward(losses["L"])
        if self.discriminator is not None and not self.warming_up:
            with self.engine.autocast():
                losses["L_D"] = discriminator_loss(self.discriminator, output.face, batch["target"])
            self.engine.backward(losses["L_D"])
        return losses

    def start_loss(self, start: InitialMotion, batch: Batch) -> Tensor:
        references, target = batch["reference_images"], batch["target"]
        motion = start(batch["landmarks"], batch["reference_landmarks"], references, batch["masked_target"])
        middle = target.shape[-1] // 2
        warped = warp(references, sampling_grid(motion.flow, LITE)[..., middle:, :], LITE)  # (B, N, 3, S/2, S)
        weight, decay = motion.weight[..., middle:, :], self.config.initial_motion_decay
        return initial_motion_loss(warped, weight, target[:, :, middle:], start.correction.weight, decay)

    @staticmethod
    def draw(model: nn.Module, batch: Batch) -> RendererOutput:
        grey = {name: batch[name].expand(-1, -1, 3, -1, -1) for name in ("target_sketches", "reference_sketches")}
        names = ("masked_target", "reference_images", "mel", "landmarks", "reference_landmarks")
        return model(**grey, **{name: batch[name] for name in names})

    def validate(self, model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """PSNR, SSIM, LPIPS and the loss's distances on the fixed samples; a row of pictures for some of them."""
        rows, pictures = [], {}
        for number, sample in enumerate(self.examples):
            batch = to_device(default_collate([sample]), self.engine.device)
            with self.engine.autocast():
                output = self.draw(model, batch)
                losses = self.loss(output.face, output.warped_reference, batch["target"])
            face, target = output.face.float(), batch["target"]
            scores = {name: metric(face, target) for name, metric in self.metrics.items()} | losses
            rows.append({name: value.item() for name, value in scores.items() if name not in ("L", "L_g")})
            if number in spread(len(self.examples), PICTURES):
                sketch = batch["target_sketches"][0, self.config.model.num_frames // 2]
                images = [sketch.expand(3, -1, -1), *batch["reference_images"][0]]
                flow = flow_to_image(output.motion.flow[0].float()) / 255 if output.motion else []
                images += [*flow, output.warped_reference[0], face[0], target[0]]
                title = f"sketch, references, motion, warped, output, target/{sample['name']} frame {sample['frame']}"
                row = torch.cat([image.float() for image in images], dim=2).clamp(0, 1) * 255  # (3, H, W * n)
                pictures[title] = row.round().byte().permute(1, 2, 0).cpu().numpy()
        numbers = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return {"selection": numbers.get("L_r", -numbers["psnr"]), **numbers}, pictures


def build(config: Config) -> Trainer:
    """Data, networks and loop of a configuration. Raises UserError when they don't fit together."""
    engine = Engine(config)
    model = weights.load(config.init, "render") if config.init else weights.build(config.model)
    if config.init:
        config = with_sizes_of(config, PRESETS[config.preset]["model"], model.config)
        fingerprint.check(model.settings, fingerprint.current(config.model.size), f"--init: {config.init}")
    with command_line.naming("--cache"):
        cache = ClipCache(config.cache, config.model.size)
    clips = split(cache.names, config.split)
    if engine.world.is_main:
        print(clips)
    run = RunFolder(config, [*clips.val, "", *clips.test])
    val = config.validation_clips(clips.train, clips.val)
    make_data = partial(
        RenderDataset, num_frames=config.model.num_frames, num_references=config.num_references, seed=config.seed,
        candidates=config.model.candidates if isinstance(config.model, LiteRendererConfig) else 0,
    )  # fmt: skip
    data = make_data([cache.open(name) for name in clips.train], config=config.sampling, speakers=clips.speakers)
    fixed, count = data, config.overfit or config.val_samples
    if not config.overfit:
        fixed = make_data([cache.open(name) for name in val], config=SamplingConfig(samples_per_epoch=count))
    examples: list[Any] = [fixed[i] for i in range(min(count, len(fixed)))]  # few, and always the same
    stage = RenderStage(config, model, engine, examples)
    return Trainer(stage, data, config, run)


def main(config: Config) -> None:
    train(build, config)


if __name__ == "__main__":
    command_line.run(main, with_preset(Config, PRESETS))
