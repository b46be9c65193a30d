"""`--alpha auto` beside the best of a grid that has seen the test data.

    python benchmarks/alpha_auto.py TRAIN TEST --difficulty difficulty.parquet --model ngrams --out DIR [--seeds 3]

TRAIN and TEST are data as for `diffident train`; `--limit N` takes N evenly spaced training samples. Every alpha of the
grid is trained on all training data and measured on TEST; `auto` chooses on held-out training data alone and trains
once more. Printed: mean test NLL and ECE of each alpha over the seeds, those of `auto`, the seeds' choices, and the
paired difference in NLL from the alpha that is best on the test data, with the bootstrap interval over samples. Time
is that of `auto` over that of one training.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from diffident import evaluate, open_dataset, train
from diffident.metrics.accuracy import nll_of_logits
from diffident.settings import load_settings
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.predictions import read_predictions
from diffident.training import train_with_chosen_alpha
from diffident.training.tuning import ALPHAS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--difficulty", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="key=value")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    sets = open_dataset(arguments.train, limit=arguments.limit), open_dataset(arguments.test)
    table = read_difficulty_table(arguments.difficulty)
    results = [one_seed(seed, sets, table, arguments) for seed in range(arguments.seeds)]
    print(json.dumps(summary(results), indent=2))


def one_seed(seed: int, sets: tuple, table, arguments) -> dict:
    """Test terms, ECE and seconds of every alpha and of `auto`."""
    found = {}
    for alpha in (*ALPHAS, "auto"):
        overrides = list(arguments.overrides) + ([] if alpha == "auto" else [f"alpha={alpha}"])
        settings = load_settings(None, overrides, model=arguments.model, loss="difficulty-aware", seed=seed)
        run_one = train_with_chosen_alpha if alpha == "auto" else train
        out = arguments.out / f"alpha-{alpha}-seed-{seed}"
        started = time.perf_counter()
        run = run_one(sets[0], settings, out=out, difficulty=table, test=sets[1], resume=out.exists())
        seconds = time.perf_counter() - started
        made = read_predictions(run.predictions("test"))
        assert made.labels is not None
        terms = nll_of_logits(made.logits, made.labels).numpy()
        error = evaluate(made.logits, made.labels, num_resamples=0).metrics["ece"].value
        chosen = run.settings.alpha, run.settings.temperature
        found[alpha] = {"terms": terms, "ece": error, "seconds": seconds, "chosen": chosen}
    return found


def summary(results: list[dict]) -> dict:
    """Means over seeds, and the paired difference of `auto` from the best of the grid."""
    means = {alpha: np.mean([seed[alpha]["terms"] for seed in results], axis=0) for alpha in results[0]}
    best = min(ALPHAS, key=lambda alpha: means[alpha].mean())
    differences = means["auto"] - means[best]
    generator = np.random.default_rng(0)
    drawn = [differences[generator.integers(len(differences), size=len(differences))].mean() for _ in range(2000)]
    times = [seed["auto"]["seconds"] / np.mean([seed[alpha]["seconds"] for alpha in ALPHAS]) for seed in results]
    return {
        "nll": {str(alpha): float(terms.mean()) for alpha, terms in means.items()},
        "ece": {str(alpha): float(np.mean([seed[alpha]["ece"] for seed in results])) for alpha in means},
        "chosen alpha and temperature": [seed["auto"]["chosen"] for seed in results],
        "best of the grid on the test data": best,
        "auto minus best, NLL": float(differences.mean()),
        "95 % interval over samples": [float(value) for value in np.quantile(drawn, [0.025, 0.975])],
        "time of auto over one training": float(np.median(times)),
    }


if __name__ == "__main__":
    main()
