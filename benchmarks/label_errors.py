"""Finding wrong labels: average precision and time, beside cleanlab's scores on the same features.

    python benchmarks/label_errors.py cifar10n --features FEATURES --labels train.parquet [--figure reliability.png]
    python benchmarks/label_errors.py clinc150 --features FEATURES [--seeds 3]

`cifar10n`: FEATURES of the CIFAR-10 training images from `diffident extract`; the Parquet file has the published label
and people's `cifar10n_*` labels: a row is wrong where they differ. `clinc150`: FEATURES of the training utterances;
5 to 40 % of the labels are flipped evenly, with 5, 20 and 100 samples a class.

Every method runs with its defaults, the same everywhere; none was chosen by looking at which labels are wrong. cleanlab
(pip install cleanlab) gets out-of-fold probabilities of a 5-fold logistic regression on standardised features, timed
with it; C = 0.01 (`--probe-c`) is quicker and better than scikit-learn's C = 1 on these features.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffident import score_features
from diffident.difficulties import posterior
from diffident.label_noise import estimate_wrong_share, probability_wrong
from diffident.storage.features import open_features

COLUMNS = ("cifar10n_aggre_label", "cifar10n_random_label1", "cifar10n_worse_label")
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["cifar10n", "clinc150"])
    parser.add_argument("--features", required=True)
    parser.add_argument("--labels", type=Path, help="Parquet with label and cifar10n_* columns")
    parser.add_argument("--methods", nargs="+", default=["rmd", "posterior"])
    parser.add_argument("--probe-c", type=float, default=0.01)
    parser.add_argument("--no-cleanlab", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figure", type=Path, help="where to draw the reliability of the probabilities (cifar10n)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    source = open_features(arguments.features).load()
    rows = cifar10n(source, arguments) if arguments.data == "cifar10n" else clinc150(source, arguments)
    for row in rows:
        print(json.dumps(row))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


def cifar10n(source, arguments) -> list[dict]:
    positions = np.array([int(str(sample).rsplit(":", 1)[1]) for sample in source.ids])
    table = pq.read_table(arguments.labels, columns=["label", *COLUMNS])
    columns = {name: table[name].to_numpy()[positions] for name in table.column_names}
    rows, curves = [], {}
    for column in COLUMNS:
        given, wrong = columns[column], columns[column] != columns["label"]
        rows += compare(source.values, given, wrong, {"labels": column, "wrong": wrong.mean()}, arguments)
        rows.append({"labels": column, **probabilities(source.values, given, wrong, curves)})
    rows.append({"labels": "label (published)", **probabilities(source.values, columns["label"], None, curves)})
    if arguments.figure:
        draw_reliability(curves, arguments.figure)
    return rows


def clinc150(source, arguments) -> list[dict]:
    labels, rows = source.labels.numpy(), []
    for per_class in (5, 20, 100):
        for share in (0.05, 0.1, 0.2, 0.4):
            for seed in range(arguments.seeds):
                generator = np.random.default_rng(seed)
                chosen = np.concatenate([
                    generator.choice(np.flatnonzero(labels == k), per_class, replace=False) for k in np.unique(labels)
                ])  # fmt: skip
                given, wrong = labels[chosen].copy(), generator.random(len(chosen)) < share
                given[wrong] = (given[wrong] + generator.integers(1, labels.max() + 1, wrong.sum())) % (
                    labels.max() + 1
                )
                setting = {"per_class": per_class, "flipped": share, "seed": seed}
                rows += compare(source.values[torch.from_numpy(chosen)], given, wrong, setting, arguments)
    return summarise(rows)


def compare(values, given: np.ndarray, wrong: np.ndarray, setting: dict, arguments) -> list[dict]:
    """Average precision, AUROC and seconds of every method."""
    rows = []
    ids = np.array([str(row) for row in range(len(given))], dtype=object)
    for method in arguments.methods:
        started = time.perf_counter()
        table = score_features(lambda: values.split(16_384), ids, given, method=method)
        rows.append({**setting, "method": method, "seconds": time.perf_counter() - started})
        rows[-1] |= quality(table.difficulty, wrong)
    if not arguments.no_cleanlab:
        started = time.perf_counter()
        for method, scores in cleanlab_scores(values, given, arguments.probe_c):
            seconds = time.perf_counter() - started
            rows.append({**setting, "method": f"cleanlab {method}", "seconds": seconds, **quality(scores, wrong)})
    return [{key: value if isinstance(value, str) else float(value) for key, value in row.items()} for row in rows]


def cleanlab_scores(values, given: np.ndarray, probe_c: float) -> Iterator[tuple[str, np.ndarray]]:
    """Each of cleanlab's methods with its scores, higher is worse, from a probe's out-of-fold probabilities."""
    from cleanlab.rank import get_label_quality_scores

    model = make_pipeline(StandardScaler(), LogisticRegression(C=probe_c, max_iter=1000))
    present = np.unique(given, return_inverse=True)[1]  # cleanlab refuses classes without a column of probabilities
    probs = cross_val_predict(model, values.float().numpy(), present, cv=5, method="predict_proba")
    for method in CLEANLAB:
        yield method, -get_label_quality_scores(present, probs, method=method)


def quality(scores: np.ndarray, wrong: np.ndarray) -> dict:
    return {"ap": average_precision_score(wrong, scores), "auroc": roc_auc_score(wrong, scores)}


def probabilities(values, given: np.ndarray, wrong: np.ndarray | None, curves: dict) -> dict:
    """The estimated number of wrong labels, and how far the probabilities can be trusted."""
    state = posterior.fit(lambda: values.split(16_384), given, int(given.max()) + 1)
    probability = probability_wrong(state.noise, state.candidates).numpy()
    share = estimate_wrong_share(state.noise, state.candidates, torch.Generator().manual_seed(0))
    result = {"estimated wrong": share.value, "low": share.low, "high": share.high, "rounds": state.rounds}
    if wrong is not None:
        bins = np.minimum((probability * 10).astype(int), 9)
        curves[f"{wrong.mean():.1%} wrong"] = [
            (float(probability[bins == b].mean()), float(wrong[bins == b].mean()), int((bins == b).sum()))
            for b in range(10)
            if (bins == b).any()
        ]
        result |= {"wrong": float(wrong.mean()), "ap of probability": average_precision_score(wrong, probability)}
        result["reliability (probability, share wrong, count)"] = list(curves.values())[-1]
    return result


def draw_reliability(curves: dict, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="#9aa0a6", linewidth=1)
    for (name, points), colour in zip(curves.items(), ("#0072B2", "#D55E00", "#009E73"), strict=False):
        axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", color=colour, label=name)
    axes.set(xlabel="probability that the label is wrong", ylabel="share of labels that are wrong", ylim=(0, 1))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def summarise(rows: list[dict]) -> list[dict]:
    """Means over the seeds."""
    groups: dict = {}
    for row in rows:
        groups.setdefault((row["per_class"], row["flipped"], row["method"]), []).append(row)
    return [
        {"per_class": key[0], "flipped": key[1], "method": key[2], "seeds": len(group)}
        | {name: float(np.mean([row[name] for row in group])) for name in ("ap", "auroc", "seconds")}
        for key, group in groups.items()
    ]


if __name__ == "__main__":
    main()
