"""Scores of pairs of images, collected by column."""

import pytest
import torch

from metrics.pairs import PairScorer


def test_pair_scorer_averages_over_all_images() -> None:
    grey = torch.full((2, 3, 16, 16), 0.5)
    scorer = PairScorer({}, None)
    scorer.add(grey, grey)
    scorer.add(grey[:1] + 0.1, grey[:1])
    scorer.add(grey + 0.1, grey, " pasted")
    means = scorer.scores()
    assert means["PSNR"] == pytest.approx((80 + 80 + 20) / 3, abs=1e-4)
    assert means["PSNR pasted"] == pytest.approx(20, abs=1e-4)
    assert means.keys() == {"PSNR", "SSIM", "PSNR pasted", "SSIM pasted"}, "LPIPS has no network here"
