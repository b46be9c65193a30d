"""Difficulty against human labels: CIFAR-10 with the wrong labels of CIFAR-10N and the votes of CIFAR-10H.

    python benchmarks/cifar10n.py --data DIR --features FEATURES_TRAIN FEATURES_TEST [--out cifar10n.json]

DIR holds train.parquet (columns label, cifar10n_*) and test.parquet (cifar10h_counts). FEATURES come from
`diffident extract`. A row is wrong where a cifar10n column differs from label. Beside ours: 5-fold logistic probe
self-confidence (what cleanlab's label quality is built on), with --probe.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import diffident
from diffident.gaussian import relative_squared_distances, squared_distances
from diffident.storage.features import open_features

COLUMNS = ("label", "cifar10n_aggre_label", "cifar10n_random_label1", "cifar10n_worse_label")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--features", required=True, nargs=2)
    parser.add_argument("--probe", action="store_true", help="also time and score the cross-validated probe (minutes)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    train, test = (open_features(path).load() for path in arguments.features)
    published = pq.read_table(arguments.data / "train.parquet", columns=list(COLUMNS))
    rows = np.array([int(str(sample).rsplit(":", 1)[1]) for sample in train.ids])
    labels = {column: published[column].to_numpy()[rows] for column in COLUMNS}
    results = [label_errors(train.values, labels, column, arguments.probe) for column in COLUMNS]
    results.append(human_uncertainty(train, test, arguments.data / "test.parquet"))
    for result in results:
        print(json.dumps(result))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


def label_errors(values, labels: dict, column: str, probe: bool) -> dict:
    import torch

    given = labels[column]
    wrong = given != labels["label"]
    started = time.perf_counter()
    gaussians = diffident.fit_gaussians(values, torch.from_numpy(given))
    difficulty = diffident.difficulty(gaussians, values, torch.from_numpy(given)).numpy()
    result = {"labels": column, "wrong": wrong.mean(), "seconds": time.perf_counter() - started}
    result["shrinkage"] = gaussians.shrinkage
    result["difficulty_mean"], result["difficulty_sd"] = difficulty.mean(), difficulty.std()
    if wrong.any():
        own = squared_distances(gaussians, values).numpy()[np.arange(len(given)), given]
        result |= {"auroc": roc_auc_score(wrong, difficulty), "ap": average_precision_score(wrong, difficulty)}
        result["auroc_squared_distance_alone"] = roc_auc_score(wrong, own)
        if probe:
            result |= probe_errors(values.float().numpy(), given, wrong)
    return {key: value if isinstance(value, str) else float(value) for key, value in result.items()}


def probe_errors(values: np.ndarray, given: np.ndarray, wrong: np.ndarray) -> dict:
    started = time.perf_counter()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    probs = cross_val_predict(model, values, given, cv=5, method="predict_proba")
    score = -probs[np.arange(len(given)), given]
    return {
        "probe_auroc": roc_auc_score(wrong, score),
        "probe_ap": average_precision_score(wrong, score),
        "probe_seconds": time.perf_counter() - started,
    }


def human_uncertainty(train, test, parquet: Path) -> dict:
    rows = np.array([int(str(sample).rsplit(":", 1)[1]) for sample in test.ids])
    counts = np.stack(pq.read_table(parquet, columns=["cifar10h_counts"])["cifar10h_counts"].to_numpy())[rows]
    votes = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(votes * np.log(np.where(votes > 0, votes, 1))).sum(axis=1)
    gaussians = diffident.fit_gaussians(train.values, train.labels)
    difficulty = diffident.difficulty(gaussians, test.values, test.labels).numpy()
    nearest = relative_squared_distances(gaussians, test.values).argmin(dim=1)
    return {
        "labels": "test images against the entropy of human votes",
        "spearman": float(spearmanr(difficulty, entropy).statistic),
        "nearest_class_mean_accuracy": float((nearest == test.labels).float().mean()),
    }


if __name__ == "__main__":
    main()
