"""The two ways of drawing that are compared give the same picture, and the whole benchmark runs."""

from pathlib import Path

import cv2
import pytest
import torch

from benchmarks import inference
from benchmarks.inference import (
    InferenceBenchmarkConfig,
    as_released,
    main,
    measure_released,
    measure_renderer,
    paper_renderer,
)


def test_both_ways_draw_the_same() -> None:
    renderer, picture, sketches, references, mel = paper_renderer(2, torch.device("cpu"))
    references[:, 1] = references[:, 1].flip(-1)
    with torch.inference_mode():
        drawn = renderer(picture, sketches, references, references, mel).face
        torch.testing.assert_close(as_released(renderer, picture, sketches, references, mel), drawn)


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "seconds", lambda work: work() is None or 0.5)
    monkeypatch.setattr(inference, "matmul_rate", lambda *_: 2e9)
    row = measure_renderer(1, torch.device("cpu"), torch.bfloat16, operations=10**9, released=1.0)
    assert row["ms"] == 500
    assert row["as released, ms"] == 1000
    assert row["speed-up"] == 2
    assert row["relative rate"] == 1


@pytest.mark.parametrize(("count", "gflop"), [(1, 189.11), (2, 276.69)])
def test_operations_are_those_of_the_released_code(monkeypatch: pytest.MonkeyPatch, count: int, gflop: float) -> None:
    monkeypatch.setattr(inference, "seconds", lambda _: 0.5)
    operations, _ = measure_released(count, torch.device("cpu"))
    assert operations / 1e9 == pytest.approx(gflop, abs=0.01)


@pytest.mark.slow
def test_the_whole_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference, "NUM_REFERENCES", (1,))
    monkeypatch.setattr(inference, "LENGTHS", (0.2, 0.8))
    monkeypatch.setattr(inference, "PICTURE", tmp_path / "b.png")
    main(InferenceBenchmarkConfig())
    assert cv2.imread(str(tmp_path / "b.png")).shape[2] == 3
    text = capsys.readouterr().out
    for words in ("start-up, s", "peak memory, MiB", "512 x 512, one core busy", "busy cores", "relative rate"):
        assert words in text
