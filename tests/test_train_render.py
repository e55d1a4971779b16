"""Stage 2 through its main(), on made-up clips, a tiny network and a made-up VGG-19."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from checkpoints import registry
from datasets.sampling import SamplingConfig
from losses.lite import LiteRenderLossConfig
from models.configs import RendererConfig
from models.lite.renderer import LiteRendererConfig
from runtime.command_line import UserError
from tests.datasets.made_up import write_clip
from tests.training.test_distributed import write_vgg
from train_render import InitialMotionTrainer, RenderTrainer, TrainRenderConfig, find_vgg, main, trainers
from training.engine import Engine
from training.loop import Trainer
from training.run_folder import load_latest, read_metrics

SIZES: dict[str, Any] = {
    "size": 32, "sketch_channels": 1, "shallow": 4, "deep": 8, "alignment_deep": 8, "modulation": 4, "style_hidden": 4,
    "audio_width": 2,
}  # fmt: skip
TINY = RendererConfig(**SIZES)
SMALL_LOSS = LiteRenderLossConfig(adversarial=0.25, feature_matching=2.5, pixel=0.0, layers=(1, 2))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    for number in range(4):
        write_clip(root, f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    return root


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_vgg(path := tmp_path_factory.mktemp("vgg") / "vgg.pth")
    return path


def start(config: TrainRenderConfig) -> list[Trainer]:
    """Returns the trainers in turn, without running them."""
    return list(trainers(config, Engine(config)))


@pytest.fixture
def config(cache: Path, vgg: Path, tmp_path: Path) -> TrainRenderConfig:
    return TrainRenderConfig(
        cache=cache, run=tmp_path / "run", vgg=vgg, model=TINY, discriminator_width=4,
        loss=SMALL_LOSS, sampling=SamplingConfig(samples_per_epoch=4), batch=2,
        steps=4, alignment_steps=2, workers=0, log_every=1, validate_every=4, num_references=2, val_samples=2,
        device="cpu", precision="fp32",
    )  # fmt: skip


def state_of(config: TrainRenderConfig) -> dict:
    state = load_latest(config.run / "checkpoints")
    assert state is not None
    return state


@pytest.mark.slow
def test_warms_up_then_trains_everything_and_resumes(config: TrainRenderConfig, tmp_path: Path) -> None:
    main(config)
    rows = [row for row in read_metrics(config.run) if row["group"] == "train"]
    assert [sorted(name for name in row if name.startswith("L")) for row in rows] == (
        2 * [["L", "L_w"]] + 2 * [["L", "L_D", "L_f", "L_g", "L_r", "L_s", "L_w"]]
    )
    for row in rows[2:]:
        total = sum(row[k] * w for k, w in {"L_w": 2.5, "L_r": 4, "L_s": 1000, "L_g": 0.25, "L_f": 2.5}.items())
        assert row["L"] == pytest.approx(total, rel=1e-4)
    halves = replace(config, run=tmp_path / "halves")
    main(replace(halves, steps=3))
    main(halves)
    for name, value in state_of(config)["networks"].items():
        assert torch.equal(value, state_of(halves)["networks"][name]), name
    assert models.load(config.run / "renderer.safetensors").config == TINY


@pytest.fixture
def lite_config(config: TrainRenderConfig) -> TrainRenderConfig:
    settings: dict[str, Any] = {"initial_motion_steps": 2, "alignment_steps": 0, "steps": 2, "ema": 0.5}
    return replace(config, model=LiteRendererConfig(**SIZES), validate_every=1, **settings)


def test_initial_motion_trains_first_and_stays_at_its_average(lite_config: TrainRenderConfig) -> None:
    *_, trainer = start(replace(lite_config, initial_motion_steps=0))
    before = trainer.network.state_dict()
    main(lite_config)
    motion = load_latest(lite_config.run / "initial_motion" / "checkpoints")
    assert motion and motion["step"] == 2
    average = motion["average"]
    state = state_of(lite_config)
    for name, value in average.items():
        assert torch.equal(state["networks"][f"renderer.initial_motion.{name}"], value)
        assert torch.equal(state["average"][f"initial_motion.{name}"], value)
    assert any(not torch.equal(value, before[f"initial_motion.{name}"]) for name, value in average.items())
    assert any(not torch.equal(value, motion["networks"][f"initial_motion.{name}"]) for name, value in average.items())
    names = {name for name, value in before.items() if not torch.equal(value, state["networks"][f"renderer.{name}"])}
    assert any(not name.startswith("initial_motion.") for name in names)
    rows = read_metrics(lite_config.run / "initial_motion")
    assert [row["step"] for row in rows if row["group"] == "train"] == [1, 2]
    assert all("L_w" in row for row in read_metrics(lite_config.run) if row["group"] == "train")


@pytest.mark.slow
def test_the_initial_motion_resumes_on_its_own(lite_config: TrainRenderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    main(lite_config)
    halves = replace(lite_config, run=lite_config.run.parent / "halves")

    def stop(trainer: Trainer, parts: list[dict[str, Any]]) -> None:
        step(trainer, parts)
        if isinstance(trainer, InitialMotionTrainer):
            trainer.engine.signal = signal.SIGTERM

    step = Trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stop)
        with pytest.raises(SystemExit):
            main(halves)
    assert not (halves.run / "checkpoints").exists()
    main(halves)
    main(replace(halves, steps=3))  # once more, from the renderer's checkpoint
    main(replace(lite_config, steps=3))
    assert state_of(halves)["step"] == 3
    for name, value in state_of(lite_config)["networks"].items():
        assert torch.equal(value, state_of(halves)["networks"][name]), name


def test_a_few_samples_are_overfitted_without_the_initial_motion(lite_config: TrainRenderConfig) -> None:
    main(replace(lite_config, sampling=SamplingConfig(overfit=2), steps=1))
    assert not (lite_config.run / "initial_motion").exists()


def test_initial_motion_pays_for_weights_that_change_nothing(lite_config: TrainRenderConfig) -> None:
    picture = torch.rand(1, 3, 32, 32)
    points = torch.rand(1, 131, 2)
    trainer: Any = start(lite_config)[0]
    batch = {"target": picture, "masked_target": picture, "reference_images": picture[:, None]}
    batch |= {"landmarks": points, "reference_landmarks": points[:, None]}  # nothing is off, so nothing is corrected
    without = trainer.loss(trainer.network, batch)
    weight = trainer.network.correction.weight
    torch.nn.init.constant_(weight, 0.1)
    cost = (trainer.loss(trainer.network, batch) - without).item()
    assert cost == pytest.approx(lite_config.initial_motion_decay * 0.01 * weight.numel(), rel=1e-3)


def test_the_warm_up_is_said_in_steps(config: TrainRenderConfig, capsys: pytest.CaptureFixture[str]) -> None:
    main(replace(config, steps=1))
    assert "the first 2 steps train the alignment alone" in capsys.readouterr().out
    config = replace(config, run=config.run.parent / "steps", alignment_steps=1)
    main(replace(config, steps=2))
    assert "the first 1 steps train" in capsys.readouterr().out
    rows = [row for row in read_metrics(config.run) if row["group"] == "train"]
    assert ["L_D" in row for row in rows] == [False, True]


def test_dry_run_is_of_steps_after_the_warm_up(config: TrainRenderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[set[str]] = []
    train_batch = RenderTrainer.train_batch

    def record(trainer: RenderTrainer, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        losses = train_batch(trainer, batch)
        names.append(set(losses))
        return losses

    monkeypatch.setattr(RenderTrainer, "train_batch", record)
    main(replace(config, dry_run=True))
    assert len(names) == 2 and all("L_D" in losses for losses in names)


def test_only_the_main_process_reads_validation_samples(config: TrainRenderConfig) -> None:
    engine = Engine(config)
    assert [len(trainer.examples) for trainer in trainers(config, engine)] == [config.val_samples]
    engine.is_main = False
    assert [len(trainer.examples) for trainer in trainers(config, engine)] == [0]


def test_cache_of_another_size(config: TrainRenderConfig) -> None:
    with pytest.raises(UserError, match=r"crop.size = 32, but 64 is needed here"):
        main(replace(config, model=replace(TINY, size=64)))


def test_missing_vgg_is_one_clear_line(
    config: TrainRenderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, vgg=None)
    monkeypatch.setattr(registry, "FOLDER", tmp_path / "checkpoints")
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    with pytest.raises(
        UserError,
        match=r"vgg19-dcbb9e9d\.pth .* is not in .*; python -m checkpoints --download vgg19, or name a file with --vgg",
    ):
        find_vgg(config)
    with pytest.raises(UserError, match=r"mine\.pth: .*No such file"):
        find_vgg(replace(config, vgg=tmp_path / "mine.pth"))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth"
    file.write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"vgg19-dcbb9e9d\.pth: not the weights of VGG-19, or damaged"):
        find_vgg(config)
    for content in ({"a": torch.zeros(1)}, [1], {"features.0.weight": torch.zeros(1), "features.0.bias": 3}):
        torch.save(content, file)
        with pytest.raises(UserError, match="not the weights of VGG-19"):
            find_vgg(replace(config, vgg=file))


def test_validation_scores_and_draws_a_sample(config: TrainRenderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    alexnet = Path(__file__).parents[2] / "shared/weights/alexnet_features_torchvision.pth"
    if not alexnet.exists():
        pytest.skip(f"{alexnet} is not there")
    monkeypatch.setattr(registry, "find", lambda _: alexnet)
    config = replace(config, model=replace(TINY, size=128), cache=config.run.parent / "cache")
    for name in "ab":
        write_clip(config.cache, name, num_frames=30)
    [trainer] = start(config)
    with torch.no_grad():
        numbers, draw_pictures = trainer.validate(trainer.average, trainer.examples[0])
    assert {"psnr", "ssim", "lpips", "L_w", "L_r", "L_s", "L_f", "selection"} <= numbers.keys()
    (title, picture), *_ = draw_pictures().items()
    assert "frame" in title
    assert picture.shape == (3, 128, 8 * 128)  # sketch, 2 references, 2 motions, warped, output, target


def test_missing_vgg_weights_say_where_to_get_them(lite_config: TrainRenderConfig) -> None:
    """Before the initial motion is trained, which takes hours."""
    with pytest.raises(UserError, match=r"nowhere\.pth: .*No such file.*see python -m checkpoints"):
        main(replace(lite_config, vgg=Path("nowhere.pth"), initial_motion_steps=2))
    assert not lite_config.run.exists()


def test_without_warping_the_discriminator_learns_from_the_first_step(config: TrainRenderConfig) -> None:
    """Nothing needs a warm-up then: a generator must not be trained against a discriminator that is not trained."""
    main(replace(config, model=replace(TINY, use_warping=False), steps=1))
    row = next(row for row in read_metrics(config.run) if row["group"] == "train")
    assert row["step"] == 1 and config.alignment_steps
    assert {name for name in row if name.startswith("L")} == {"L", "L_D", "L_f", "L_g", "L_r", "L_s"}


@pytest.mark.parametrize(("settings", "message"), [
    ({"batch": 1}, "batch: 1 must be a multiple of processes x accumulate"),
    ({"accumulate": 2}, "batch: 2 must be a multiple of processes x accumulate"),
    ({"num_references": 0}, "num_references: must be at least 1, not 0"),
    ({"val_samples": 0}, "val_samples: must be at least 1, not 0"),
    ({"discriminator_width": 0}, "discriminator_width: must be at least 1, not 0"),
])  # fmt: skip
def test_wrong_settings_are_named(config: TrainRenderConfig, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        start(replace(config, **settings))


@pytest.mark.parametrize(("group", "settings", "message"), [
    ("model", {"num_frames": 0}, "model.num_frames: must be at least 1, not 0"),
    ("model", {"num_frames": 4}, "model.num_frames: 4 is not odd"),
    ("model", {"kernel": 4}, "model.kernel: 4 is not odd"),
    ("model", {"size": 31}, "model.size: 31 is not a multiple of 4"),
    ("model", {"deep": 6}, "model.deep: 6 is not a multiple of 4"),
    ("model", {"alignment_deep": 2}, "model.alignment_deep: 2 is not a multiple of 4"),
    ("loss", {"layers": (1, 6)}, r"loss.layers: \(1 6\) are not some of \(1, 2, 3, 4, 5\)"),
    ("loss", {"layers": ()}, r"loss.layers: \(\) are not some of"),
    ("loss", {"warp": -1.0}, "loss.warp: must be at least 0, not -1.0"),
    ("loss", {"warp": 0.0, "perceptual": 0.0, "style": 0.0, "adversarial": 0.0, "feature_matching": 0.0},
     "loss: all weights are 0"),
])  # fmt: skip
def test_impossible_settings_are_named(
    config: TrainRenderConfig, group: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        replace(config, **{group: replace(getattr(config, group), **settings)})


@pytest.mark.parametrize(("model", "loss"), [
    ({}, {"perceptual": 0.0, "style": 0.0, "adversarial": 0.0, "feature_matching": 0.0}),  # the alignment alone
    ({}, {"warp": 0.0}),  # the alignment has no loss of its own, so no warm-up
    ({"use_warping": False}, {"warp": 0.0}),  # no alignment, so no warm-up
])  # fmt: skip
def test_weights_that_leave_something_to_train_are_taken(
    config: TrainRenderConfig, model: dict[str, Any], loss: dict[str, Any]
) -> None:
    changed = {"model": replace(config.model, **model), "loss": replace(config.loss, **loss)}
    [trainer] = start(replace(config, **changed))
    trainer.train_step(next(trainer.batches()))
    assert any(name == "L" and value > 0 for _, name, value, _ in trainer.unreported)
