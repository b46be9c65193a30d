"""Losses on CLINC150: accuracy, ECE, NLL, AURC and out-of-scope AUROC, mean and standard deviation over seeds.

    python benchmarks/clinc150.py --data DIR --encoder sentence-transformers:PATH --out DIR [--seeds 3]

DIR holds train.parquet, test.parquet and out_of_scope_test.parquet. The difficulty is that of the encoder's features;
the text model (bag of word 1- and 2-grams) is trained from scratch.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from diffident import evaluate, extract, open_dataset, open_encoder, predict, score_features, train
from diffident.settings import load_settings

LOSSES = {
    "cross-entropy": {},
    "label-smoothing": {"smoothing": 0.05},
    "entropy": {"alpha": 0.1},
    "difficulty-aware": {"alpha": 0.2, "temperature": 0.7},
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
    results = {
        name: [one_run(arguments.out, name, seed, sets, table) for seed in range(arguments.seeds)] for name in LOSSES
    }
    for name, runs in results.items():
        cells = {key: (np.mean([r[key] for r in runs]), np.std([r[key] for r in runs], ddof=1)) for key in runs[0]}
        print(f"{name:<18}" + "  ".join(f"{key} {mean:.4f} ± {sd:.4f}" for key, (mean, sd) in cells.items()))
    print(json.dumps({"seconds": seconds, **table.metadata}))
    (arguments.out / "clinc150.json").write_text(json.dumps(results, indent=2) + "\n")


def one_run(out: Path, name: str, seed: int, sets: dict, table) -> dict:
    overrides = [f"{key}={value}" for key, value in LOSSES[name].items()]
    settings = load_settings(None, overrides, model="ngrams", loss=name, seed=seed, epochs=20)
    folder = out / "runs" / f"{name}-{seed}"
    started = time.perf_counter()
    train(
        sets["train"],
        settings,
        out=folder,
        difficulty=table if name == "difficulty-aware" else None,
        resume=folder.exists(),
    )
    seconds = time.perf_counter() - started
    predictions, outside = predict(folder, sets["test"]), predict(folder, sets["out_of_scope_test"])
    result = evaluate(predictions.logits, predictions.labels, ood={"oos": outside.logits}, num_resamples=0)
    metrics = {key: result.metrics[key].value for key in METRICS}
    return {**metrics, "oos_auroc": result.ood["oos"]["auroc"].value, "seconds": seconds}


if __name__ == "__main__":
    main()
