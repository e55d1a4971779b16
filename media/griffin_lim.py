"""Sound from a log-mel spectrogram, with estimated phases: good enough to understand the speech."""

import numpy as np
import torch
from numpy import ndarray
from scipy.signal import lfilter

from media.audio import HOP, N_FFT, PREEMPHASIS, WINDOW, mel_basis, mel_magnitudes

ITERATIONS = 32


def invert_log_mel(mel: ndarray) -> ndarray:
    """Inverts `media.audio.log_mel` approximately, by the Griffin-Lim algorithm.

    Args:
        mel: (80, C) in [-4, 4].

    Returns:
        (200 * (C - 1),) float32 in [-1, 1] at 16 kHz.
    """
    spectrum = np.linalg.pinv(mel_basis()) @ mel_magnitudes(mel)
    magnitude = torch.from_numpy(spectrum).float().clamp(min=0)  # (401, C)
    window = torch.hann_window(WINDOW)
    sound = torch.istft(magnitude.to(torch.complex64), N_FFT, HOP, window=window)
    for _ in range(ITERATIONS):
        phase = torch.stft(sound, N_FFT, HOP, window=window, return_complex=True).sgn()
        sound = torch.istft(magnitude * phase, N_FFT, HOP, window=window)
    samples = np.asarray(lfilter([1], [1, -PREEMPHASIS], sound.numpy()), np.float32)
    return samples.clip(-1, 1)
