"""Lip motion: closed forms of every metric."""

import numpy as np
import pytest

from media.audio import COLUMNS_PER_SECOND, FPS, N_MELS, SAMPLE_RATE, SILENCE, log_mel
from metrics.lip_motion import (
    articulation_ratio,
    closed_f1,
    correlation,
    jitter,
    landmark_distance,
    motion_in_silence,
    nan_mean,
    silent_frames,
)

random = np.random.default_rng(0)
LIPS = random.random((30, 40, 2))


def test_a_shift_of_d_pixels_in_a_crop_of_side_s_is_d_over_s() -> None:
    side = 128
    np.testing.assert_allclose(landmark_distance(LIPS + np.array([3 / side, 4 / side]), LIPS), 5 / side)
    np.testing.assert_allclose(landmark_distance(LIPS * side + 3, LIPS * side), 3 * np.sqrt(2))
    assert landmark_distance(LIPS, LIPS).max() == 0


def test_frames_without_a_face_are_ignored() -> None:
    broken = LIPS.copy()
    broken[3] = np.nan
    distance = landmark_distance(broken + 0.1, LIPS)
    assert np.isnan(distance[3])
    assert nan_mean(distance) == pytest.approx(0.1 * np.sqrt(2))
    assert np.isnan(nan_mean(np.full(3, np.nan)))


def test_correlation_equals_numpys() -> None:
    a, b = random.random(50), random.random(50)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert correlation(3 * a + 1, a) == pytest.approx(1)
    assert correlation(-a, a) == pytest.approx(-1)
    assert np.isnan(correlation(np.ones(50), a)), "a constant signal has no correlation"
    gap = a.copy()
    gap[7] = np.nan
    assert correlation(gap, b) == pytest.approx(np.corrcoef(np.delete(a, 7), np.delete(b, 7))[0, 1])
    assert np.isnan(correlation(np.full(50, np.nan), b))


def test_closed_f1_counts_frames_with_both_mouths_closed() -> None:
    truth = np.array([0.0, 0.0, 0.009, 0.05, 0.05, np.nan])
    assert closed_f1(truth, truth) == 1
    assert closed_f1(np.array([0.0, 0.02, 0.009, 0.0, 0.1, 0.0]), truth) == pytest.approx(2 * 2 / (3 + 3))
    assert closed_f1(np.full(6, 0.1), truth) == 0
    assert np.isnan(closed_f1(truth, np.full(6, 0.1))), "NaN if the original never closes"


def test_articulation_is_the_ratio_of_standard_deviations() -> None:
    openness = random.random(40)
    assert articulation_ratio(openness * 0.34 + 5, openness) == pytest.approx(0.34)
    assert np.isnan(articulation_ratio(openness, np.ones(40)))


def test_jitter_ignores_constant_speed_and_measures_a_zigzag() -> None:
    steady = np.arange(20)[:, None, None] * np.ones((20, 3, 2))
    assert jitter(steady) == pytest.approx(0)
    zigzag = np.where(np.arange(20) % 2, 1.0, -1.0)[:, None, None] * np.full((20, 3, 2), 0.5)
    assert jitter(zigzag) == pytest.approx(2)


def test_silence_is_found_and_its_motion_measured() -> None:
    seconds = 4
    time = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    noise = random.standard_normal(len(time)) * np.where((time < 1) | (time > 3), 0.1, 0.001)
    wav = noise.astype(np.float32)
    silent = silent_frames(log_mel(wav), seconds * FPS)
    assert silent[35:65].all()
    assert not silent[:24].any()
    assert not silent[76:].any()
    openness = np.where(silent, 0.0, random.random(seconds * FPS))
    assert motion_in_silence(openness, silent) == 0
    moving = np.where(np.arange(seconds * FPS) % 2, 0.1, 0.0)
    assert motion_in_silence(moving, silent) == pytest.approx(0.1 * FPS)
    assert np.isnan(motion_in_silence(moving, np.zeros(seconds * FPS, bool)))


def test_steady_noise_is_not_silent() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    assert not silent_frames(log_mel(noise), 4 * FPS).any()
    noise[2 * SAMPLE_RATE :] *= 0.001
    assert silent_frames(log_mel(noise), 4 * FPS)[60:95].all()
    assert silent_frames(log_mel(0.001 * noise), 4 * FPS).all(), "quiet throughout"


def test_sound_is_silent_beyond_its_end() -> None:
    loud = np.zeros((N_MELS, COLUMNS_PER_SECOND))
    assert silent_frames(loud, 50)[30:].all()
    assert not silent_frames(np.concatenate([loud, np.full_like(loud, SILENCE)], 1), 50)[:20].any()
    assert silent_frames(np.zeros((N_MELS, 0)), 10).all()
