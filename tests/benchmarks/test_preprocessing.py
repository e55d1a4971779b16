"""The benchmark of preprocessing runs, and its tables have every figure."""

import re

import pytest

from benchmarks import preprocessing
from benchmarks.preprocessing import PreprocessingBenchmarkConfig, main


@pytest.mark.slow
def test_the_whole_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(preprocessing, "CLIPS", 2)
    main(PreprocessingBenchmarkConfig())
    text = capsys.readouterr().out
    for name in ("clips", "clips, only detection", "LandmarkDataset", "RenderDataset"):
        assert re.search(rf"^{name} +[\d.]+$", text, re.M)
