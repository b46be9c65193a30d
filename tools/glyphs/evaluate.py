"""The figures of docs/glyphs.md: the encoder against raw pixels on scikit-learn's digits.

    python tools/glyphs/evaluate.py [--weights FILE] [--json]

The Gaussians are written out here in NumPy, float64, from the formulas, so that the figures do not rest on the
package's own. Of 20 random splits, stratified by class: accuracy of the nearest class mean (fitted on 1,000 digits,
tried on the other 797) and AUROC of the difficulty for 10 % flipped labels (fitted and scored on all 1,797). The
encoder gets Ledoit-Wolf's shrinkage; the pixels get that and each of a grid, of which the best for each figure is
reported.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

sys.path.insert(0, str(Path(__file__).parent))
from validate import WEIGHTS, load_network

from diffident.encoders.glyph_network import prepare_glyph

NUM_SPLITS, NUM_TRAIN, FLIPPED = 20, 1_000, 0.1
GRID = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    digits = load_digits()
    glyphs, pixels = encode(digits.images, arguments.weights), digits.images.reshape(-1, 64) / 16
    rows = {
        "glyphs": measure(glyphs, digits.target, None),
        "pixels": measure(pixels, digits.target, None),
        "pixels, best of grid": best([measure(pixels, digits.target, amount) for amount in GRID]),
    }
    if arguments.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:<20}  " + "  ".join(f"{key} {mean:.4f} ± {sd:.4f}" for key, (mean, sd) in row.items()))


def encode(images: np.ndarray, weights: Path) -> np.ndarray:
    """Features of images [n, 8, 8] with levels 0 to 16, as the package's encoder computes them on the CPU."""
    pictures = (Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)) for image in images)
    prepared = torch.stack([prepare_glyph(picture) for picture in pictures])
    with torch.inference_mode():
        return load_network(weights)(prepared).double().numpy()


def measure(features: np.ndarray, labels: np.ndarray, shrinkage: float | None) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the splits of both figures."""
    accuracies, aurocs = [], []
    for seed in range(NUM_SPLITS):
        train, test = train_test_split(np.arange(len(labels)), train_size=NUM_TRAIN, stratify=labels, random_state=seed)
        to_class, _ = squared_distances(features[train], labels[train], features[test], shrinkage)
        accuracies.append((to_class.argmin(axis=1) == labels[test]).mean())
        rng = np.random.default_rng(seed)
        flipped = rng.permutation(len(labels)) < round(FLIPPED * len(labels))
        given = np.where(flipped, (labels + rng.integers(1, 10, len(labels))) % 10, labels)
        to_class, to_background = squared_distances(features, given, features, shrinkage)
        aurocs.append(roc_auc_score(flipped, to_class[np.arange(len(labels)), given] - to_background))
    figures = {"nearest-class-mean accuracy": accuracies, "AUROC of flipped labels": aurocs}
    return {name: (float(np.mean(values)), float(np.std(values, ddof=1))) for name, values in figures.items()}


def squared_distances(
    features: np.ndarray, labels: np.ndarray, queries: np.ndarray, shrinkage: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """D2_k [n, 10] of the class Gaussians and D2_0 [n] of the background one, fitted on features and labels.

    Everything is divided by N; the within-class covariance is shrunk towards a scaled identity, and the background's is
    that plus the between-class covariance. Without an amount, Ledoit-Wolf's.
    """
    n, d = features.shape
    counts = np.bincount(labels, minlength=10)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(10)])
    overall = features.mean(axis=0)
    residuals = features - means[labels]
    amount = ledoit_wolf_shrinkage(residuals, assume_centered=True) if shrinkage is None else shrinkage
    within = residuals.T @ residuals / n
    within = (1 - amount) * within + amount * np.trace(within) / d * np.eye(d)
    centred = means - overall
    total = within + (centred * (counts / n)[:, None]).T @ centred
    to_class = np.stack([mahalanobis(queries - mean, within) for mean in means], axis=1)
    return to_class, mahalanobis(queries - overall, total)


def mahalanobis(differences: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Squared distances of the rows [n]."""
    return np.einsum("nd,nd->n", differences, np.linalg.solve(covariance, differences.T).T)


def best(rows: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Each figure's best; picked on the digits themselves, in the pixels' favour."""
    return {name: max(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    main()
