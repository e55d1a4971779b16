"""Similarity transforms (turn, scale, shift) between point sets, by least squares in closed form."""

import numpy as np


def fit_similarity(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complex `a`, `b` (...) with target = a * source + b, from points (..., K, 2); leading axes broadcast."""
    z, w = (p[..., 0] + 1j * p[..., 1] for p in (np.asarray(source, np.float64), np.asarray(target, np.float64)))
    z_mean, w_mean = z.mean(-1), w.mean(-1)
    z, w = z - z_mean[..., None], w - w_mean[..., None]
    scale = (z.conj() * w).sum(-1) / (np.abs(z) ** 2).sum(-1).clip(1e-12)
    return scale, w_mean - scale * z_mean


def move(points: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Points (..., K, 2) after `fit_similarity`'s a and b (...)."""
    z = scale[..., None] * (points[..., 0] + 1j * points[..., 1]) + shift[..., None]
    return np.stack([z.real, z.imag], -1)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) matrix on (x, y, 1) that brings points (K, 2) nearest to others (K, 2)."""
    scale, shift = fit_similarity(source, target)
    return np.array([[scale.real, -scale.imag, shift.real], [scale.imag, scale.real, shift.imag]])
