"""Losses on CLINC150: accuracy, ECE, NLL, AURC and out-of-scope AUROC, mean and standard deviation over seeds.

    python benchmarks/clinc150.py --data DIR --encoder sentence-transformers:PATH --out DIR [--seeds 3]

DIR holds train.parquet, test.parquet and out_of_scope_test.parquet. The difficulty is that of the encoder's features;
the text model (bag of word 1- and 2-grams) is trained from scratch. Its settings are the defaults, which were chosen
with cross-entropy on the validation data (`clinc150_selection.py`), never on the test data. The strengths of the
losses are their defaults and were not chosen here. In the last row the same weights are given to random samples: what
of the gain it keeps does not come from knowing which samples are hard.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffident import evaluate, extract, open_dataset, open_encoder, predict, score_features, train
from diffident.records import DifficultyTable
from diffident.settings import load_settings

LOSSES = {
    "cross-entropy": {},
    "label-smoothing": {"smoothing": 0.05},
    "entropy": {"alpha": 0.1},
    "difficulty-aware": {"alpha": 0.2, "temperature": 0.7},
    "shuffled weights": {"alpha": 0.2, "temperature": 0.7},
}
METRICS = ("accuracy", "ece", "nll", "aurc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    sets = {name: open_dataset(arguments.data / f"{name}.parquet") for name in ("train", "test", "out_of_scope_test")}
    started = time.perf_counter()
    source = extract(sets["train"], open_encoder(arguments.encoder), out=arguments.out / "features")
    seconds = {"extract": time.perf_counter() - started}
    started = time.perf_counter()
    table = score_features(source.blocks, source.ids, source.labels, encoder=source.encoder)
    seconds["score"] = time.perf_counter() - started
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LOSSES}
    for seed in range(arguments.seeds):
        for name in LOSSES:
            results[name].append(one_run(arguments.out, name, seed, sets, table))
    for name, runs in results.items():
        cells = [f"{key} {spread([run[key] for run in runs])}" for key in runs[0]]
        print(f"{name:<18}" + "  ".join(cells))
    print(json.dumps({"seconds": seconds, **table.metadata}))
    (arguments.out / "clinc150.json").write_text(json.dumps(results, indent=2) + "\n")


def spread(values: list[float]) -> str:
    """Mean and standard deviation; the value itself where there is one."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def one_run(out: Path, name: str, seed: int, sets: dict, table: DifficultyTable) -> dict[str, float]:
    loss = "difficulty-aware" if name == "shuffled weights" else name
    if name == "shuffled weights":
        order = np.random.default_rng(seed).permutation(len(table))
        table = replace(table, difficulty=table.difficulty[order])
    overrides = [f"{key}={value}" for key, value in LOSSES[name].items()]
    settings = load_settings(None, overrides, model="ngrams", loss=loss, seed=seed)
    folder = out / "runs" / f"{name.replace(' ', '-')}-{seed}"
    started = time.perf_counter()
    train(sets["train"], settings, out=folder, difficulty=table, resume=folder.exists())
    seconds = time.perf_counter() - started
    predictions, outside = predict(folder, sets["test"]), predict(folder, sets["out_of_scope_test"])
    result = evaluate(predictions.logits, predictions.labels, ood={"oos": outside.logits}, num_resamples=0)
    metrics = {key: result.metrics[key].value for key in METRICS}
    return {**metrics, "oos_auroc": result.ood["oos"]["auroc"].value, "seconds": seconds}


if __name__ == "__main__":
    main()
