"""`results.json`: everything that the tables are made of, whatever has been finished so far."""

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffident
from diffident.calibrators import calibrate
from diffident.paired import DEFAULT_METRICS, PairedDifference, compare_predictions
from diffident.records import Estimate, Predictions
from diffident.storage.atomic import write_text
from experiments.linking import point_name
from experiments.materials import Materials
from experiments.measures import SCALED, fit_temperature, is_there, measure, predictions_of, rounded, seeds_of
from experiments.recipe import Method, Recipe
from experiments.runs import choose, trials_of

RESULTS = "results.json"
FORMAT_VERSION = 1
Measured = dict[tuple[str, int], dict[str, Any]]


def collect(materials: Materials, measured: Measured) -> Measured:
    """The measures of every method and seed that is finished; those that are known already are kept."""
    recipe, out = materials.recipe, materials.place.out
    splits = list(materials.evaluated)
    for name in recipe.methods:
        for seed in seeds_of(recipe, name):
            if (name, seed) not in measured and is_there(recipe, out, name, seed, splits):
                measured[name, seed] = measure(recipe, out, name, seed)
    return measured


def write_results(materials: Materials, measured: Measured, comparisons: dict[str, Any] | None) -> Path:
    """Write what there is; equal runs give equal bytes, whatever order they were made in."""
    recipe, place = materials.recipe, materials.place
    methods = {name: _method(recipe, place.out, method, measured) for name, method in recipe.methods.items()}
    results = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe.name,
        "title": recipe.title,
        "baseline": recipe.baseline,
        "ours": recipe.ours,
        "seeds": list(range(recipe.seeds)),
        "data": {"train": _described(materials.raw_train), **_sets(materials)},
        "difficulty": _difficulty(recipe),
        "training": recipe.training,
        "environment": environment(place.threads),
        "methods": {name: found for name, found in methods.items() if found["runs"]},
        "missing": _missing(recipe, measured),
        "comparisons": comparisons,
    }
    file = place.out / RESULTS
    write_text(file, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return file


def pairs_of(recipe: Recipe, measured: Measured) -> list[tuple[str, str]]:
    """Every method with the baseline, and ours with every other; points of a sweep with the baseline there."""
    there = [name for name in recipe.methods if any(one == name for one, _ in measured)]
    pairs: dict[tuple[str, str], None] = {}
    for name in there:
        point = recipe.methods[name].point
        others = [recipe.baseline]
        if point is not None:
            others = [point_name(recipe.baseline, point.sweep, point.value), recipe.baseline]
            others = [next((other for other in others if other in there and other != name), "")]
        pairs |= {(name, other): None for other in others if other in there and other != name}
    if recipe.ours in there:
        plain = [name for name in there if recipe.methods[name].point is None]
        pairs |= {(recipe.ours, other): None for other in plain if other != recipe.ours}
    return list(pairs)


def compare_pair(materials: Materials, pair: tuple[str, str]) -> dict[str, Any]:
    """The differences of a method from another and the means of both, before and after temperature scaling."""
    recipe, out = materials.recipe, materials.place.out
    splits = ["validation", "test"]
    common = [seed for seed in seeds_of(recipe, pair[0]) if seed in seeds_of(recipe, pair[1])]
    seeds = [seed for seed in common if all(is_there(recipe, out, name, seed, splits) for name in pair)]
    runs: dict[str, list[tuple[str, int, Predictions]]] = {"before": [], SCALED: []}
    for name in pair:
        for seed in seeds:
            validation, test = (predictions_of(recipe, out, name, seed, split) for split in splits)
            state = fit_temperature(validation)
            scaled = Predictions(test.ids, calibrate(state, test.logits), test.labels, test.label_names)
            runs["before"].append((name, seed, test))
            runs[SCALED].append((name, seed, scaled))
    found: dict[str, Any] = {}
    for key, several in runs.items():
        if not seeds:
            found[key] = {"differences": [], "means": {}}
            continue
        comparison = compare_predictions(several, pair[1], num_resamples=recipe.num_resamples)
        means = {name: {key: _estimate(one) for key, one in of.items()} for name, of in comparison.means.items()}
        found[key] = {"differences": [_difference(one, pair[1]) for one in comparison.differences], "means": means}
    return found


def compare_all(recipe: Recipe, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The differences of all pairs, and the means of all methods with their intervals, in the recipe's order."""
    joined: dict[str, Any] = {"metrics": list(DEFAULT_METRICS)}
    for key in ("before", SCALED):
        means: dict[str, Any] = {}
        for part in reversed(found):  # of a method in several pairs the first one counts: that with the baseline
            means |= part[key]["means"]
        joined[key] = {
            "means": {name: means[name] for name in recipe.methods if name in means},
            "differences": [one for part in found for one in part[key]["differences"]],
        }
    return joined


def environment(threads: int) -> dict[str, Any]:
    """What the numbers may depend on beside the recipe."""
    return {
        "diffident": diffident.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _method(recipe: Recipe, out: Path, method: Method, measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {"role": method.role}
    if method.ensemble is not None:
        found |= {"of": method.ensemble.of, "members": method.ensemble.members}
    else:
        found["loss"] = recipe.source_of(method).loss
    if method.point is not None:
        point = method.point
        found["point"] = {"sweep": point.sweep, "vary": point.vary, "value": point.value, "method": point.method}
    if method.tune:
        trials = [{**trial, "nll": rounded(trial["nll"])} for trial in trials_of(recipe, out, method)]
        found["tuning"] = {
            "seed": recipe.tuning_seed,
            "criterion": "validation nll",
            "trials": trials,
            "chosen": choose(recipe, out, method),
        }
    found["runs"] = [measured[method.name, s] for s in range(recipe.seeds) if (method.name, s) in measured]
    return found


def _missing(recipe: Recipe, measured: Measured) -> dict[str, list[int]]:
    """Seeds that are not finished, by method."""
    absent = {name: [s for s in seeds_of(recipe, name) if (name, s) not in measured] for name in recipe.methods}
    return {name: seeds for name, seeds in absent.items() if seeds}


def _difficulty(recipe: Recipe) -> dict[str, Any]:
    """What the usual difficulty is of; of an encoder in a folder the folder's own name."""
    spec = recipe.difficulty
    encoder = None if spec.encoder is None else re.sub(r":/.*/(?=[^/])", ":", spec.encoder)
    return {"method": spec.method, "encoder": encoder, "image_size": spec.image_size}


def _described(dataset: Any) -> dict[str, Any]:
    return {"name": dataset.name, "num_samples": len(dataset)}


def _sets(materials: Materials) -> dict[str, Any]:
    return {name: _described(dataset) for name, dataset in materials.evaluated.items()}


def _difference(found: PairedDifference, other: str) -> dict[str, Any]:
    return {
        "method": found.name,
        "other": other,
        "metric": found.metric,
        "difference": _estimate(found.difference),
        "p": rounded(found.p_value),
        "adjusted_p": rounded(found.adjusted_p),
        "num_seeds": found.num_seeds,
    }


def _estimate(found: Estimate) -> list[float | None]:
    return [rounded(value) for value in (found.value, found.low, found.high)]
