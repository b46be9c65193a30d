"""Naive float64 loops for the Gaussians, independent of the package."""

import numpy as np


def covariances(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sigma_w and Sigma_t, sample by sample, divided by N."""
    d = z.shape[1]
    within, total = np.zeros((d, d)), np.zeros((d, d))
    for sample, label in zip(z, y, strict=True):
        a, b = sample - z[y == label].mean(axis=0), sample - z.mean(axis=0)
        within += np.outer(a, a) / len(z)
        total += np.outer(b, b) / len(z)
    return within, total


def distances(z: np.ndarray, y: np.ndarray, shrinkage: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """D2_k [n, K] and D2_0 [n], by solving a linear system for every sample and class."""
    within, total = covariances(z, y)
    identity = np.eye(len(within)) * np.trace(within) / len(within)
    shrunk = (1 - shrinkage) * within + shrinkage * identity
    background = shrunk + (total - within)
    classes = range(y.max() + 1)
    own = np.zeros((len(z), len(classes)))
    for row, sample in enumerate(z):
        for k in classes:
            a = sample - z[y == k].mean(axis=0)
            own[row, k] = a @ np.linalg.solve(shrunk, a)
    outer = np.array([(s - z.mean(axis=0)) @ np.linalg.solve(background, s - z.mean(axis=0)) for s in z])
    return own, outer
