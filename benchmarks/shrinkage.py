"""How the amount of shrinkage changes what is found of wrong labels, where samples are few.

    python benchmarks/shrinkage.py cifar10n --features FEATURES --labels train.parquet
    python benchmarks/shrinkage.py clinc150 --features FEATURES

Average precision for wrong labels, mean of the seeds, by the automatic amount, by the amounts of scikit-learn's OAS and
Ledoit-Wolf estimates of the within-class covariance, and, of `rmd`, by the best of a grid, picked by the answers, which
nobody has. Beside them cleanlab's self-confidence with a 5-fold probe, as in label_errors.py. Data are as for that
script: people's labels of random images, and utterances of which a tenth and two fifths have another label.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from label_errors import cleanlab_scores, quality
from sklearn.covariance import ledoit_wolf_shrinkage, oas

from diffident import score_features
from diffident.storage.features import open_features

SIZES, PER_CLASS, FLIPPED = (200, 1_000, 5_000), (5, 20), (0.1, 0.4)
COLUMNS = ("cifar10n_aggre_label", "cifar10n_worse_label")
GRID = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
METHODS = ("rmd", "posterior")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["cifar10n", "clinc150"])
    parser.add_argument("--features", required=True)
    parser.add_argument("--labels", type=Path, help="Parquet with label and cifar10n_* columns")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of images, or of utterances a class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-cleanlab", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    source = open_features(arguments.features).load()
    settings = cifar10n(source, arguments) if arguments.data == "cifar10n" else clinc150(source, arguments)
    rows = []
    for setting, found in summarise(settings, arguments):
        rows.append({**setting, **found})
        print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


def cifar10n(source, arguments) -> Iterator[tuple[dict, torch.Tensor, np.ndarray, np.ndarray]]:
    positions = np.array([int(str(sample).rsplit(":", 1)[1]) for sample in source.ids])
    table = pq.read_table(arguments.labels, columns=["label", *COLUMNS])
    for size in arguments.sizes or SIZES:
        for column in COLUMNS:
            for seed in range(arguments.seeds):
                rows = np.random.default_rng(seed).permutation(len(positions))[:size]
                given, true = (table[name].to_numpy()[positions[rows]] for name in (column, "label"))
                yield {"samples": size, "labels": column}, source.values[torch.from_numpy(rows)], given, given != true


def clinc150(source, arguments) -> Iterator[tuple[dict, torch.Tensor, np.ndarray, np.ndarray]]:
    labels = source.labels.numpy()
    classes = labels.max() + 1
    for per_class in arguments.sizes or PER_CLASS:
        for share in FLIPPED:
            for seed in range(arguments.seeds):
                draw = np.random.default_rng(seed)
                of_class = [draw.permutation(np.flatnonzero(labels == k))[:per_class] for k in range(classes)]
                rows = np.concatenate(of_class)
                given, wrong = labels[rows].copy(), draw.random(len(rows)) < share
                given[wrong] = (given[wrong] + draw.integers(1, classes, wrong.sum())) % classes
                yield {"per_class": per_class, "flipped": share}, source.values[torch.from_numpy(rows)], given, wrong


def summarise(settings, arguments) -> Iterator[tuple[dict, dict]]:
    """Means over the seeds of every setting."""
    parts = defaultdict(list)
    for setting, values, given, wrong in settings:
        key = json.dumps(setting)
        parts[key].append(precision(values, given, wrong, arguments))
        if len(parts[key]) == arguments.seeds:
            found = parts.pop(key)
            yield setting, {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}


def precision(values: torch.Tensor, given: np.ndarray, wrong: np.ndarray, arguments) -> dict[str, float]:
    centred = minus_class_means(values, given)
    amounts = {
        "auto": "auto",
        "OAS": float(oas(centred, assume_centered=True)[1]),
        "Ledoit-Wolf": float(ledoit_wolf_shrinkage(centred, assume_centered=True)),
    }
    found = {}
    for method in METHODS:
        for name, amount in amounts.items():
            found[f"{method}, {name}"], chosen = average_precision(values, given, wrong, method, amount)
            if name == "auto":
                found[f"{method}, amount"] = chosen
    found["rmd, best of grid"] = max(average_precision(values, given, wrong, "rmd", amount)[0] for amount in GRID)
    if not arguments.no_cleanlab:
        scores = dict(cleanlab_scores(values, given, probe_c=0.01))
        found["cleanlab"] = float(quality(scores["self_confidence"], wrong)["ap"])
    return found


def average_precision(values, given, wrong, method: str, amount: float | str) -> tuple[float, float]:
    ids = np.array([str(row) for row in range(len(given))], dtype=object)
    table = score_features(lambda: values.split(16_384), ids, given, method=method, shrinkage=amount)
    return float(quality(table.difficulty, wrong)["ap"]), table.metadata["shrinkage"]


def minus_class_means(values: torch.Tensor, given: np.ndarray) -> np.ndarray:
    centred = values.double().numpy().copy()
    for label in np.unique(given):
        centred[given == label] -= centred[given == label].mean(axis=0)
    return centred


if __name__ == "__main__":
    main()
