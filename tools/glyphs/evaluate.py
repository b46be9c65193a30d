"""The figures of the model card: `glyphs` features against raw pixels on scikit-learn's digits.

    python tools/glyphs/evaluate.py

Nearest-class-mean accuracy: Gaussians of the 1,000 training digits, argmin over D2_k on the 600 test digits. AUROC: the
difficulty of all 1,797 digits after 10 % of the labels were flipped, mean and standard deviation over 20 seeds. Both
representations get the automatic shrinkage, and the pixels also their best of a grid.
"""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from diffident import difficulty, extract, fit_gaussians, open_dataset
from diffident.gaussian import squared_distances


def main() -> None:
    sets = {split: open_dataset(f"digits:{split}") for split in ("train", "test")} | {"all": open_dataset("digits")}
    for encoder, shrinkages in (("glyphs", ["auto", 0.1]), ("identity", ["auto", 0.001, 0.01, 0.03, 0.1, 0.3])):
        features = {name: extract(dataset, encoder) for name, dataset in sets.items()}
        for shrinkage in shrinkages:
            state = fit_gaussians(features["train"].values, features["train"].labels, shrinkage=shrinkage)
            nearest = squared_distances(state, features["test"].values).argmin(dim=1)
            accuracy = (nearest == features["test"].labels).double().mean()
            aurocs = [flip_auroc(features["all"], shrinkage, seed) for seed in range(20)]
            print(
                f"{encoder:<9} shrinkage {shrinkage!s:<6} nearest-class-mean accuracy {accuracy:.4f}  "
                f"AUROC of flipped labels {np.mean(aurocs):.4f} ± {np.std(aurocs, ddof=1):.4f}"
            )


def flip_auroc(features, shrinkage, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    flipped = torch.rand(len(features), generator=generator) < 0.1
    shift = torch.randint(1, 10, (len(features),), generator=generator)
    labels = torch.where(flipped, (features.labels + shift) % 10, features.labels)
    state = fit_gaussians(features.values, labels, shrinkage=shrinkage)
    return float(roc_auc_score(flipped, difficulty(state, features.values, labels)))


if __name__ == "__main__":
    main()
