"""Mel spectrograms against the released implementation, and the arithmetic of windows."""

from pathlib import Path

import librosa
import numpy as np
import pytest

from media import audio
from media.griffin_lim import invert_log_mel
from media.video import read_audio

ROOT = Path(__file__).resolve().parents[2]


def test_log_mel_equals_the_released_one(shared):
    case = np.load(shared / "reference" / "mel.npz")
    mel = audio.log_mel(case["wav"])
    assert mel.shape == case["mel"].shape and mel.dtype == np.float32
    np.testing.assert_allclose(mel, case["mel"], atol=1e-4)


def test_log_mel_of_a_tone_peaks_in_its_band():
    time = np.arange(16000) / audio.SAMPLE_RATE
    mel = audio.log_mel(0.5 * np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    assert mel.shape == (80, 81)
    # Slaney's scale is linear below 1 kHz, 15 mel there; the 80 bands divide the range from 55 to 7600 Hz evenly.
    top = 15 + np.log(7.6) / (np.log(6.4) / 27)
    expected = (15 - 55 / (200 / 3)) / (top - 55 / (200 / 3)) * 81 - 1
    assert abs(np.argmax(mel[:, 40]) - expected) <= 1


def test_long_sound_is_computed_in_blocks_without_seams(monkeypatch):
    wav = np.random.default_rng(0).normal(0, 0.1, 20 * audio.HOP * 7 + 13).astype(np.float32)
    whole = audio.log_mel(wav)
    monkeypatch.setattr(audio, "_BLOCK", 7)
    np.testing.assert_allclose(audio.log_mel(wav), whole, atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 160])
def test_very_short_sound_has_a_spectrogram(samples):
    mel = audio.log_mel(np.zeros(samples, np.float32))
    assert mel.shape == (80, 1) and (mel == audio.SILENCE).all()


def test_stereo_is_refused():
    with pytest.raises(ValueError, match="mono"):
        audio.log_mel(np.zeros((2, 100), np.float32))


def window_of(mel, frame):
    return audio.mel_windows(mel, np.array([frame]))[0, 0]


def test_windows_start_where_the_frame_is_centred():
    mel = np.broadcast_to(np.arange(100, dtype=np.float32), (80, 100))
    for frame, start in [(2, 0), (3, 3), (4, 6), (5, 9), (6, 12), (27, 80)]:
        np.testing.assert_array_equal(window_of(mel, frame)[0], np.arange(start, start + 16))


def test_windows_outside_the_sound_are_silence():
    mel = np.ones((80, 20), np.float32)
    early, late = window_of(mel, 0), window_of(mel, 6)
    np.testing.assert_array_equal(early[0], [-4] * 7 + [1] * 9)  # floor(-6.4) = -7
    np.testing.assert_array_equal(late[0], [1] * 8 + [-4] * 8)  # starts at column 12
    assert (window_of(mel, 1000) == audio.SILENCE).all()


def test_windows_of_many_frames_equal_those_of_each():
    mel = np.random.default_rng(1).normal(size=(80, 50)).astype(np.float32)
    frames = np.array([-3, 0, 7, 7, 40])
    windows = audio.mel_windows(mel, frames)
    assert windows.shape == (5, 1, 80, 16) and windows.dtype == np.float32
    for window, frame in zip(windows, frames, strict=True):
        np.testing.assert_array_equal(window[0], window_of(mel, int(frame)))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (640, 1), (641, 2), (16000, 25), (16001, 26)])
def test_frames_for_samples(samples, frames):
    assert audio.frames_for_samples(samples) == frames


def test_settings_are_plain_and_prefixed():
    assert all(
        name.startswith("audio.") and isinstance(value, int | float | str) for name, value in audio.settings().items()
    )


def test_mel_bands_are_librosas() -> None:
    bands = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    np.testing.assert_allclose(audio.mel_basis(), bands, atol=1e-8)


def test_spectrum_is_librosas() -> None:
    wav = np.random.default_rng(2).normal(0, 0.1, 16000).astype(np.float32)
    emphasised = np.append(wav[:1], wav[1:] - np.float32(0.97) * wav[:-1])
    spectrum = np.abs(librosa.stft(emphasised, n_fft=800, hop_length=200, win_length=800))
    decibel = 20 * np.log10(np.maximum(1e-5, audio.mel_basis() @ spectrum)) - 20
    np.testing.assert_allclose(audio.log_mel(wav), np.clip(8 * (decibel + 100) / 100 - 4, -4, 4), atol=1e-4)


def test_inverted_spectrum_sounds_alike() -> None:
    wav = read_audio(ROOT / "assets" / "speech.flac")[:48000]
    mel = audio.log_mel(wav)
    sound = invert_log_mel(mel)
    assert sound.shape == (48000,) and sound.dtype == np.float32 and np.abs(sound).max() <= 1
    assert np.corrcoef(mel.ravel(), audio.log_mel(sound).ravel())[0, 1] > 0.98
