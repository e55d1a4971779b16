"""Mel spectrograms, and all arithmetic between samples, mel columns and video frames.

The analysis is that of Wav2Lip and IP-LAP: pre-emphasis, an 800-point STFT every 200 samples, 80 Slaney mel bands,
decibels mapped to [-4, 4]. Each video frame gets the 16 columns (0.2 s) centred on the time at which it is shown.
"""

import math
from functools import cache

import numpy as np
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

SAMPLE_RATE = 16000  # Hz, mono
N_FFT = 800
WINDOW = 800  # samples of the periodic Hann window
HOP = 200  # samples from one mel column to the next
N_MELS = 80
FMIN = 55  # Hz
FMAX = 7600  # Hz
PREEMPHASIS = 0.97
FPS = 25  # video frames a second
MEL_COLUMNS = 16  # of the mel window of one video frame
COLUMNS_PER_SECOND = 80

SILENCE = -4.0  # mel value of silence
_LOUDEST = 4.0
_FLOOR_DB = -100
_REFERENCE_DB = 20
_MELS_PER_E = 27 / math.log(6.4)  # above 1000 Hz
_HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
_LEAD = 2  # a frame's window starts this many frames earlier, to be centred on the 1/25 s for which the frame is shown
_BLOCK = 1024  # mel columns computed at a time

assert COLUMNS_PER_SECOND * HOP == SAMPLE_RATE
assert (2 * _LEAD + 1) * COLUMNS_PER_SECOND == MEL_COLUMNS * FPS


@cache
def mel_basis() -> ndarray:
    """(80, 401) filter bank from STFT bins to Slaney's mel bands: triangles of equal area."""
    lowest = FMIN * 15 / 1000  # mel: Slaney's scale is linear up to 1000 Hz = 15 mel, and logarithmic above
    highest = 15 + _MELS_PER_E * math.log(FMAX / 1000)
    mels = np.linspace(lowest, highest, N_MELS + 2)
    edges = np.where(mels < 15, mels * 1000 / 15, 1000 * np.exp((mels - 15) / _MELS_PER_E))  # Hz
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    triangles = []
    for band in range(N_MELS):
        low, centre, high = edges[band : band + 3]
        triangles.append(np.interp(bins, [low, centre, high], [0, 2 / (high - low), 0]))
    return np.array(triangles, np.float32)


def log_mel(wav: ndarray) -> ndarray:
    """Log-mel spectrogram.

    Args:
        wav: (S,) float32 in [-1, 1], mono at `SAMPLE_RATE`.

    Returns:
        (80, 1 + S // HOP) float32 in [-4, 4]; column c is centred on sample c * HOP. Samples outside `wav` are zero.
    """
    wav = np.asarray(wav, np.float32)
    if wav.ndim != 1:
        raise ValueError(f"log_mel takes mono samples (S,), not an array of shape {wav.shape}")
    columns = 1 + len(wav) // HOP
    mel = np.empty((N_MELS, columns), np.float32)
    for first in range(0, columns, _BLOCK):  # the whole spectrum of a long sound would take much memory
        block = mel[:, first : first + _BLOCK]
        start = first * HOP - N_FFT // 2
        end = start + (block.shape[1] - 1) * HOP + N_FFT
        block[:] = _log_mel(_pre_emphasise(wav, start, end))
    return mel


def _pre_emphasise(wav: ndarray, start: int, end: int) -> ndarray:
    """Samples `start` to `end` of the pre-emphasised sound: (end - start,) float32, zero outside the sound."""
    samples = np.zeros(end - start, np.float32)
    first = max(start, 0)
    last = min(end, len(wav))
    samples[first - start : last - start] = wav[first:last]
    second = max(first, 1)  # the first sample of a sound has no predecessor
    samples[second - start : last - start] -= np.float32(PREEMPHASIS) * wav[second - 1 : last - 1]
    return samples


def _log_mel(samples: ndarray) -> ndarray:
    """Pre-emphasised samples (N_FFT + n * HOP,) -> (80, 1 + n)."""
    windows = sliding_window_view(samples, WINDOW)[::HOP]  # (1 + n, 800)
    spectrum = np.fft.rfft(windows * _HANN).T  # (401, 1 + n)
    mel = mel_basis() @ np.abs(spectrum)
    decibel = 20 * np.log10(np.maximum(10 ** (_FLOOR_DB / 20), mel)) - _REFERENCE_DB
    return np.interp(decibel, [_FLOOR_DB, 0], [SILENCE, _LOUDEST])


def mel_magnitudes(mel: ndarray) -> ndarray:
    """Undoes the logarithm: log-mel spectrogram (80, C) -> magnitude in each mel band (80, C)."""
    decibel = np.interp(mel, [SILENCE, _LOUDEST], [_FLOOR_DB, 0]) + _REFERENCE_DB
    return 10 ** (decibel / 20)


def first_columns(frames: ndarray) -> ndarray:
    """First mel column of each frame's window: frame numbers (n,) -> (n,) int, floor(80 * (frame - 2) / 25)."""
    exact = COLUMNS_PER_SECOND * (np.asarray(frames) - _LEAD) / FPS
    return np.floor(exact + 1e-6).astype(np.int64)  # rounding errors must not move a whole number down


def mel_windows(mel: ndarray, frames: ndarray, tempo: float = 1.0) -> ndarray:
    """The mel windows of video frames: mel (80, C), frame numbers (n,) at `FPS` -> (n, 1, 80, 16) float32.

    Fractional frame numbers are moments between two frames; videos of other frame rates have them. Columns before and
    after the sound are silence. A window spans `tempo` times 0.2 s.
    """
    centre = (MEL_COLUMNS - 1) / 2
    offsets = np.rint(centre + tempo * (np.arange(MEL_COLUMNS) - centre)).astype(np.int64)
    columns = first_columns(frames)[:, None] + offsets  # (n, 16)
    inside = (columns >= 0) & (columns < mel.shape[1])
    columns = np.where(inside, columns, 0)
    windows = np.where(inside, mel[:, columns], np.float32(SILENCE))  # (80, n, 16)
    windows = windows.transpose(1, 0, 2)[:, None]
    return np.ascontiguousarray(windows, np.float32)


def frames_for_samples(samples: int) -> int:
    """Number of video frames at `FPS` that cover `samples` at `SAMPLE_RATE`; at least one for any sound."""
    return -(-samples * FPS // SAMPLE_RATE)


def settings() -> dict[str, str | int | float]:
    """Fingerprint of the mel windows, for caches and weights."""
    return {
        "audio.sample_rate": SAMPLE_RATE,
        "audio.n_fft": N_FFT,
        "audio.window": WINDOW,
        "audio.hop": HOP,
        "audio.n_mels": N_MELS,
        "audio.fmin": FMIN,
        "audio.fmax": FMAX,
        "audio.preemphasis": PREEMPHASIS,
        "audio.silence": SILENCE,
        "audio.fps": FPS,
        "audio.mel_columns": MEL_COLUMNS,
    }
