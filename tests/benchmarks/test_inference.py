"""Both ways of drawing that are compared draw the same."""

import pytest
import torch

from benchmarks import inference
from networks import SHIPPED_WEIGHTS, DubConfig, Networks


def test_shipped_and_plain_draw_the_same_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(inference, "median_ms", lambda run, *_: drawn.append(run().face) or 6.0)
    networks = Networks.from_weights(SHIPPED_WEIGHTS, DubConfig(device="cpu", half=False))
    assert inference.renderer_ms(networks, 2, 3, 1) == (2.0, 2.0), "milliseconds a frame"
    assert len(drawn[0]) == 3
    torch.testing.assert_close(*drawn)
