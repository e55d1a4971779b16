"""The loop never loses work, and says what went wrong: kills, full disks, damaged checkpoints, NaN."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import nn

import train_landmark
import train_render
from runtime.command_line import UserError
from tests.training.toy import STEPS, ToyTrainer, path_of, toy_trainer
from training import loop
from training.batches import part_indices, sample_indices
from training.config import TrainConfig
from training.engine import SIGNALS, Engine, update_average
from training.run_folder import RunFolder, load_latest, read_metrics

ROOT = Path(__file__).resolve().parents[2]


def last(run: Path) -> dict[str, Any]:
    state = load_latest(run / "checkpoints")
    assert state is not None
    return state


def train(run: Path, **settings: Any) -> ToyTrainer:
    trainer = toy_trainer(run, **settings)
    trainer.fit()
    return trainer


def assert_same(a: Any, b: Any) -> None:
    """Checks equality bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def indices_of(step: int, config: TrainConfig, length: int = 8) -> list[int]:
    """Returns the indices of a step's batch."""
    return list(islice(sample_indices(length, config, step * config.batch), config.batch))


def losses(run: Path, group: str = "train") -> list[float]:
    return [row["L"] for row in read_metrics(run) if row["group"] == group and "L" in row]


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Lets no file grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
@pytest.mark.parametrize(("when", "code", "kept"), [("step", -9, 4), ("save", -9, 4), ("term", 0, 5)])
def test_killed_run_continues_as_if_never_killed(tmp_path: Path, when: str, code: int, kept: int) -> None:
    command = [sys.executable, "-m", "tests.training.toy", str(tmp_path / "killed"), when]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == code
    assert last(tmp_path / "killed")["step"] == kept
    train(tmp_path / "killed")
    train(tmp_path / "whole")
    # SIGTERM makes it save between two validations; nothing else differs.
    assert_same(last(tmp_path / "killed"), last(tmp_path / "whole"))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == STEPS
    assert not list((tmp_path / "killed").rglob("*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_and_saves(
    tmp_path: Path, number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_trainer(tmp_path).config
    engine = Engine(config)
    monkeypatch.setattr(loop, "Engine", lambda _: engine)
    trainer = toy_trainer(tmp_path, engine=engine)
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    step = trainer.train_step

    def lost(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    def train_step(batch: Any) -> None:
        step(batch)
        if trainer.step == 3:
            monkeypatch.setattr("builtins.print", lost)  # as if the terminal were gone
            signal.raise_signal(number)

    trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        with pytest.raises(SystemExit) as ended:
            loop.train(lambda *_: [trainer], config)
        assert ended.value.code == code
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert last(tmp_path)["step"] == 3


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """The lock ends with the training that held it, even if that is killed: its data loaders never hold it."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tests.training.toy", str(run), "wait"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout
    try:
        assert any("step 5 " in line for line in first.stdout)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        second = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, check=False)
        message = f"error: run: another training uses {run}; wait for it to end, or use another folder\n"
        assert (second.returncode, second.stderr) == (2, message)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    finally:
        first.kill()
        first.wait()
    assert train(run).step == STEPS


def test_disk_full_while_saving_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=4)
    before = last(tmp_path / "run")
    limit = max(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").iterdir()) // 2
    with disk_full_at(limit), pytest.raises(UserError, match=r"step_\d+.pt could not be written \(.*\); free space"):
        train(tmp_path / "run")
    assert_same(last(tmp_path / "run"), before)
    assert not list((tmp_path / "run").rglob("*.part"))
    train(tmp_path / "run")
    train(tmp_path / "whole")
    assert_same(last(tmp_path / "run"), last(tmp_path / "whole"))


def test_profile_writes_a_trace_of_steps_that_count(tmp_path: Path) -> None:
    train(tmp_path / "traced", profile=True)
    events = json.loads((tmp_path / "traced" / "trace.json").read_text())["traceEvents"]
    assert any("Optimizer.step#Adam" in event.get("name", "") for event in events)
    train(tmp_path / "plain")
    states = [last(tmp_path / name)["networks"] for name in ("traced", "plain")]
    assert_same(*states)
    train(tmp_path / "short", profile=True, steps=2)
    assert last(tmp_path / "short")["step"] == 2


def test_disk_full_while_logging_is_one_line(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=2, validate_every=1000)
    size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
    with disk_full_at(size + 10), pytest.raises(UserError, match="could not be written"):
        train(tmp_path / "run", validate_every=1000)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_disk_full_while_tensorboard_writes_is_one_line(tmp_path: Path) -> None:
    folder = toy_trainer(tmp_path).run
    folder.open()
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    with disk_full_at(2000), pytest.raises(UserError, match=r"could not be written \(File too"):
        folder.log(1, "validation", {}, {"noise": noise})


def test_curves_continue_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Files are read in the order of their names; their last number has no leading zeros, so that it starts at 10.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(10))
    train(tmp_path, steps=4)
    interrupted = toy_trainer(tmp_path).run
    interrupted.open()
    for step in (5, 6):  # not in a checkpoint
        interrupted.log(step, "train", {"L": 0.5}, {})
    interrupted.close()
    train(tmp_path, steps=8)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    curve = board.Scalars("train/L")
    assert [point.step for point in curve] == list(range(1, 9))
    assert [point.value for point in curve] == pytest.approx(losses(tmp_path), rel=1e-6)
    assert [image.step for image in board.Images("picture")] == [2, 4, 6, 8]


def test_damaged_newest_checkpoint_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", steps=6)
    newest = path_of(tmp_path / "run" / "checkpoints", 6)
    newest.write_bytes(newest.read_bytes()[:500])
    train(tmp_path / "run")
    assert "step_000000006.pt cannot be read" in capsys.readouterr().out
    train(tmp_path / "whole")
    assert_same(last(tmp_path / "run"), last(tmp_path / "whole"))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="no checkpoint can be read"):
        train(tmp_path / "run")


def test_damaged_checkpoints_do_not_count_among_the_two_kept(tmp_path: Path) -> None:
    train(tmp_path, steps=6)
    path_of(tmp_path / "checkpoints", 6).write_bytes(b"damaged")
    toy_trainer(tmp_path, steps=5).fit()
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step_000000004.pt",
        "step_000000005.pt",
    ]


@pytest.mark.parametrize("log_every", [1, 5])
def test_nan_stops_with_the_names_of_its_clips(tmp_path: Path, log_every: int) -> None:
    indices = indices_of(1, toy_trainer(tmp_path, validate_every=10).config)
    clips = ", ".join(f"clip{i % 8}" for i in indices)
    message = rf"step 1: L is no longer finite; look at the clips \({clips}\), lower"
    with pytest.raises(UserError, match=message):
        train(tmp_path, broken=broken_at(tmp_path, step=1), log_every=log_every, validate_every=10)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_commit_is_that_of_this_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, commit = subprocess.getstatusoutput(f"git -C {ROOT} rev-parse --short HEAD")
    folder = RunFolder(TrainConfig(cache=tmp_path, run=tmp_path / "run"))
    folder.open()
    folder.close()
    written = json.loads((tmp_path / "run" / "config.json").read_text())["versions"]["git"]
    assert written == "" if failed else commit in written


def test_commit_is_empty_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = RunFolder(TrainConfig(cache=tmp_path, run=tmp_path / "run"))
    folder.open()
    folder.close()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["versions"]["git"] == ""


def test_learning_rate_and_clipping_may_change_when_a_run_continues(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    train(tmp_path, steps=3, learning_rate=1e-3, clip_norm=1.0)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["config"]["learning_rate"] == 1e-3
    assert written["versions"]["torch"] == torch.__version__ and "git" in written["versions"]
    with pytest.raises(UserError, match=f"batch: {tmp_path} was started with 4, not 2"):
        train(tmp_path, batch=2)
    for path in (tmp_path / "checkpoints").iterdir():  # as if it had failed before the first
        path.unlink()
    train(tmp_path, batch=2)


def broken_at(run: Path, step: int) -> int:
    """An item of that step of the first epoch, so of none before."""
    return indices_of(step, toy_trainer(run, validate_every=10).config)[0] % 8


def test_run_without_validation_reports_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = toy_trainer(tmp_path)
    step = trainer.train_step

    def train_step(batch: Any) -> None:
        step(batch)
        trainer.engine.signal = signal.SIGTERM

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.fit()
    assert "step 1: stopped (the same command continues); not validated yet, see" in capsys.readouterr().out


def test_a_signal_in_the_last_step_still_exports(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, steps=1)
    step = trainer.train_step

    def train_step(batch: Any) -> None:
        step(batch)
        trainer.engine.signal = signal.SIGTERM

    trainer.train_step = train_step  # type: ignore[method-assign]
    assert trainer.fit()
    assert trainer.exported == [1]


def test_the_best_weights_are_exported_and_two_checkpoints_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = toy_trainer(tmp_path, steps=10)
    trainer.selections = [3.0, 1.0, 2.0, 1.5, 1.0, 0.5]
    trainer.fit()
    assert (trainer.step, trainer.best) == (10, 1.0)
    assert trainer.exported == [2, 4]
    assert "step 10: done; best 1, see" in capsys.readouterr().out
    assert train(tmp_path, steps=10).step == 10  # repeating the command does not train on
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_000000008.pt",
        "step_000000010.pt",
    ]


def test_only_every_tenth_example_is_drawn(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, steps=1)
    trainer.examples = [{}] * 11
    drawn = []
    trainer.validate = lambda *_: ({"L": 1.0}, lambda: drawn.append(1) or {})  # type: ignore[method-assign]
    trainer.fit()
    assert len(drawn) == 2


def test_run_continues_in_another_precision(tmp_path: Path) -> None:
    for steps, precision in enumerate(("fp32", "bf16"), start=2):
        train(tmp_path, steps=steps, precision=precision)
    assert read_metrics(tmp_path)[-1]["step"] == 3


def test_accumulated_parts_are_one_batch(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", batch=8, dropout=0.0, clip_norm=0.5)
    parts = train(tmp_path / "parts", batch=8, dropout=0.0, clip_norm=0.5, accumulate=4)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_half_precision_learns_the_same(tmp_path: Path) -> None:
    train(tmp_path / "whole", dropout=0.0, steps=60, validate_every=60)
    half = train(tmp_path / "half", dropout=0.0, steps=60, validate_every=60, precision="bf16")
    assert half.engine.autocast().fast_dtype == torch.bfloat16
    assert losses(tmp_path / "half") != losses(tmp_path / "whole")
    assert losses(tmp_path / "half")[-1] == pytest.approx(losses(tmp_path / "whole")[-1], rel=0.1)


def test_learning_rate_rises_and_gradients_are_clipped(tmp_path: Path) -> None:
    train(tmp_path, warmup_steps=4, steps=6)
    rates = [row["learning_rate"] for row in read_metrics(tmp_path) if row["group"] == "train"]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])
    trainer = toy_trainer(tmp_path / "clipped", clip_norm=0.1)
    layer = trainer.network
    optimiser = torch.optim.SGD([{"name": "toy", "params": layer.parameters()}])
    before = torch.nn.utils.parameters_to_vector(layer.parameters()).clone()
    layer(torch.ones(1, 16)).sum().backward()
    norm = trainer.engine.update(optimiser, 0)["toy_gradient_norm"]
    moved = torch.nn.utils.parameters_to_vector(layer.parameters()) - before
    assert norm > 0.1
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_averaged_weights_follow_with_the_decay(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, ema=0.9)
    steps = trainer.batches()
    expected = [p.detach().clone() for p in trainer.network.parameters()]
    for step in range(1, 4):
        trainer.train_step(next(steps))
        decay = min(0.9, (1 + step) / (10 + step))
        now = trainer.network.parameters()
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, now, strict=True)]
    for average, value in zip(trainer.average.parameters(), expected, strict=True):
        torch.testing.assert_close(average, value)


def test_batch_statistics_are_averaged_like_the_weights() -> None:
    norm = nn.BatchNorm1d(3, momentum=1.0)  # its own statistics are those of the last batch alone
    average = nn.BatchNorm1d(3)
    assert average.running_mean is not None
    average.running_mean.zero_()
    expected = torch.zeros(3)
    for step in (100, 101, 102):
        norm(torch.full((4, 3), float(step)))
        update_average(average, norm, 0.5)
        expected = 0.5 * expected + 0.5 * step
        torch.testing.assert_close(average.running_mean, expected)
    assert average.num_batches_tracked == 3


def test_average_of_trained_weights_is_the_mean_of_all_steps() -> None:
    config = TrainConfig(cache=Path(), run=Path(), ema=0.9, init=Path("trained"))
    layer = nn.Linear(1, 1, bias=False)
    average = nn.Linear(1, 1, bias=False)
    nn.init.constant_(average.weight, 0.0)
    for step in range(1, 5):
        nn.init.constant_(layer.weight, float(step))
        update_average(average, layer, config.decay_at(step))
    assert average.weight.item() == pytest.approx((0 + 0 + 1 + 2 + 3 + 4) / 6)  # the start counts twice


def test_each_epoch_has_every_sample_once() -> None:
    config = TrainConfig(cache=Path(), run=Path(), batch=3, seed=1)
    indices = [i for step in range(10) for i in indices_of(step, config, length=10)]
    epochs = [indices[i : i + 10] for i in range(0, 30, 10)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10 * e, 10 * e + 10)) for e in range(3)]
    assert [i % 10 for i in epochs[0]] != [i % 10 for i in epochs[1]]


def test_processes_share_each_batch(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.engine.num_processes = 2
    shares = []
    for rank in (0, 1):
        trainer.engine.rank = rank
        shares += next(part_indices(8, trainer.config, trainer.engine, first_step=0))
    assert sorted(shares) == sorted(indices_of(0, trainer.config))


@pytest.mark.parametrize(("settings", "message"), [
    ({"batch": 8, "accumulate": 3}, "batch: 8 must be a multiple of processes x accumulate"),
    ({"batch": 0}, "batch: must be at least 1, not 0"),
    ({"log_every": -1}, "log_every: must be at least 1, not -1"),
    ({"ema": 1.0}, "ema: must be below 1, not 1.0"),
])  # fmt: skip
def test_wrong_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        toy_trainer(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run could not be written"):
        train(tmp_path / "file" / "run")


def test_another_network_in_the_folder(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    trainer = toy_trainer(tmp_path)
    trainer.saved["networks"] = torch.nn.Linear(3, 3)
    with pytest.raises(UserError, match=r"run: .* holds checkpoints of another network \("):
        trainer.fit()


@pytest.mark.parametrize("fast", [False, True])
def test_auto_precision_is_bf16_where_that_is_faster(
    tmp_path: Path, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    lite = [script.PRESETS["lite"].precision for script in (train_landmark, train_render)]
    engines: list[Engine] = [toy_trainer(tmp_path, precision=precision).engine for precision in lite]
    assert [engine.half for engine in engines] == 2 * [fast]
