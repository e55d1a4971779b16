"""The two ways of drawing that are compared give the same picture, and the whole benchmark runs."""

from pathlib import Path

import cv2
import pytest
import torch

from benchmarks import inference
from benchmarks.inference import InferenceBenchmarkConfig, main, measure_renderer


def test_shipped_and_plain_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(inference, "seconds", lambda work: drawn.append(work().face) or 0.5)
    monkeypatch.setattr(inference, "matmul_rate", lambda *_: 2e9)
    row = measure_renderer(2, torch.device("cpu"), torch.float32)
    assert row["ms"] == row["plain formula, ms"] == 500
    assert row["relative rate"] == pytest.approx(row["GFLOP"] / 0.5 / 2)
    torch.testing.assert_close(*drawn)


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
