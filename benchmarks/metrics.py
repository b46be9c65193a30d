"""Metrics: speed and memory against peers, speed of the intervals, and how often the intervals hold the truth.

    python benchmarks/metrics.py peers [--rows 1000000] [--classes 100] [--repeats 3]     # about 2 GB of memory
    python benchmarks/metrics.py intervals [--rows 50000] [--classes 1000] [--resamples 1000]
    python benchmarks/metrics.py coverage [--trials 200]

`peers`: every library in a process of its own, on the same float32 probabilities; all metrics that it has, from the
probabilities on, on one thread; seconds are the processor's, which other work on the machine changes little. Ours is
`MetricAccumulator` in batches of 10,000 rows: all metrics at once, in float64. Peers (pip install torchmetrics
torch-uncertainty netcal) that are not installed are left out.

`intervals`: `evaluate` with intervals, the classwise metrics (which go through all probabilities again) apart.

`coverage`: how often 95 % intervals hold the true error of a model whose true probabilities are known, at several
numbers of samples; beside them the percentile interval of `ece`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from diffident.bootstrap import bootstrap, percentile_interval, resampling_counts
from diffident.metrics import ece
from diffident.metrics.deviations import calibration_deviations
from diffident.metrics.ranking import rank_samples
from diffident.metrics.streaming import MetricAccumulator
from diffident.metrics.suite import CALIBRATION, CalibrationSuite, DrawnCalibration

BATCH = 10_000
LIBRARIES = ("diffident", "torchmetrics", "torch-uncertainty", "netcal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "intervals", "coverage", "worker"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--library")
    arguments = parser.parse_args()
    if arguments.what == "worker":
        print(json.dumps(time_library(arguments.library, arguments.rows, arguments.classes, arguments.repeats)))
    elif arguments.what == "peers":
        print(
            json.dumps(
                compare_peers(arguments.rows or 1_000_000, arguments.classes or 100, arguments.repeats), indent=2
            )
        )
    elif arguments.what == "intervals":
        print(
            json.dumps(
                time_intervals(arguments.rows or 50_000, arguments.classes or 1000, arguments.resamples), indent=2
            )
        )
    else:
        measure_coverage(arguments.trials)


def make_predictions(num_rows: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a classifier that is right about three times in four, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num_rows,), generator=generator)
    logits = torch.randn(num_rows, num_classes, generator=generator)
    logits[torch.arange(num_rows), labels] += 4 + 2 * torch.randn(num_rows, generator=generator)
    return logits, labels


def compare_peers(num_rows: int, num_classes: int, repeats: int) -> dict:
    results = {}
    for library in LIBRARIES:
        options = ["--library", library, "--rows", num_rows, "--classes", num_classes, "--repeats", repeats]
        command = [sys.executable, __file__, "worker", *map(str, options)]
        results[library] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours = results["diffident"]
    for library, result in results.items():
        if result and library != "diffident":
            result["times as slow as all of ours"] = round(result["seconds"] / ours["all metrics"], 1)
            result["times as slow as ours of these"] = round(result["seconds"] / ours[f"those of {library}"], 1)
    return results


def time_library(library: str, num_rows: int, num_classes: int, repeats: int) -> dict | None:
    """Least seconds of every part and of all, and what the process needed above its data at most."""
    try:
        parts = PARTS[library](num_classes)
    except ImportError:
        return None
    torch.set_num_threads(1)
    logits, labels = make_predictions(num_rows, num_classes)
    probs = torch.softmax(logits, dim=1, out=logits)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {}
    for name, part in parts.items():
        times = []
        for _ in range(repeats):
            started = time.process_time()
            part(probs, labels)
            times.append(time.process_time() - started)
        seconds[name] = round(min(times), 3)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(sum(seconds.values()), 3), "megabytes above the data": (after - before) // 1024, **seconds}


# What each peer has.
THEIRS = {
    "torchmetrics": ["accuracy", "ece", "mce", "auroc_errors", "aupr_errors"],
    "torch-uncertainty": [
        *("nll", "brier", "ece", "ece_equal_mass", "aurc", "augrc"),
        *("coverage_at_risk_5", "risk_at_coverage_80", "fpr95_errors"),
    ],
    "netcal": ["ece", "mce", "ece_equal_mass"],
}


def our_parts(num_classes: int) -> dict[str, Callable]:
    def accumulate(metrics: list[str] | None) -> Callable:
        def measure(probs: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
            accumulator = MetricAccumulator(metrics)
            for start in range(0, len(labels), BATCH):
                accumulator.update(probs=probs[start : start + BATCH], labels=labels[start : start + BATCH])
            return accumulator.compute()

        return measure

    return {"all metrics": accumulate(None)} | {
        f"those of {name}": accumulate(theirs) for name, theirs in THEIRS.items()
    }


def in_batches(make: Callable, *, of_errors: bool = False) -> Callable:
    """A torchmetrics metric that is updated batch by batch; of errors by 1 - confidence, or of all classes."""

    def measure(probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        metric = make()
        for start in range(0, len(labels), BATCH):
            batch, targets = probs[start : start + BATCH], labels[start : start + BATCH]
            if of_errors:
                sure, predictions = batch.max(dim=1)
                batch, targets = 1 - sure, (predictions != targets).long()
            metric.update(batch, targets)
        return metric.compute()

    return measure


def torchmetrics_parts(num_classes: int) -> dict[str, Callable]:
    from torchmetrics import classification as tm

    def error(norm: str, num_bins: int = 15) -> Callable:
        return in_batches(lambda: tm.MulticlassCalibrationError(num_classes, n_bins=num_bins, norm=norm))

    return {
        "accuracy": in_batches(lambda: tm.MulticlassAccuracy(num_classes, average="micro")),
        "ece": error("l1"),
        "mce": error("max"),
        "auroc_errors": in_batches(tm.BinaryAUROC, of_errors=True),
        "aupr_errors": in_batches(tm.BinaryAveragePrecision, of_errors=True),
    }


def torch_uncertainty_parts(num_classes: int) -> dict[str, Callable]:
    from torch_uncertainty.metrics import classification as tu

    return {
        "nll": in_batches(tu.CategoricalNLL),
        "brier": in_batches(lambda: tu.BrierScore(num_classes=num_classes)),
        "ece": in_batches(lambda: tu.CalibrationError(task="multiclass", num_classes=num_classes, num_bins=15)),
        "ece_equal_mass": in_batches(
            lambda: tu.AdaptiveCalibrationError(task="multiclass", num_classes=num_classes, num_bins=15)
        ),
        "aurc": in_batches(tu.AURC),
        "augrc": in_batches(tu.AUGRC),
        "coverage_at_risk_5": in_batches(tu.CovAt5Risk),
        "risk_at_coverage_80": in_batches(tu.RiskAt80Cov),
        "fpr95_errors": in_batches(lambda: tu.FPR95(pos_label=1), of_errors=True),
    }


def netcal_parts(num_classes: int) -> dict[str, Callable]:
    from netcal.metrics import ECE, MCE

    def measured(metric) -> Callable:
        return lambda probs, labels: metric.measure(probs.numpy(), labels.numpy())

    return {
        "ece": measured(ECE(15)),
        "mce": measured(MCE(15)),
        "ece_equal_mass": measured(ECE(15, equal_intervals=False)),
    }


PARTS = {
    "diffident": our_parts,
    "torchmetrics": torchmetrics_parts,
    "torch-uncertainty": torch_uncertainty_parts,
    "netcal": netcal_parts,
}


def time_intervals(num_rows: int, num_classes: int, num_resamples: int) -> dict[str, dict[str, float]]:
    """Seconds of `evaluate` by part."""
    from diffident import evaluation
    from diffident.metrics.inputs import check_logits
    from diffident.metrics.terms import sample_terms

    logits, labels = make_predictions(num_rows, num_classes)
    seconds = {}

    def timed(name: str, function: Callable):
        started, started_work = time.perf_counter(), time.process_time()
        result = function()
        took, worked = time.perf_counter() - started, time.process_time() - started_work
        seconds[name] = {"seconds": round(took, 2), "of a processor": round(worked, 2)}
        return result

    scores = check_logits(logits, "logits", probs_as="")
    terms, sums = timed("terms of the samples", lambda: sample_terms(scores, labels))
    timed("all but the classwise", lambda: evaluation._sample_metrics(terms, num_resamples, 0))
    timed("classwise", lambda: evaluation._classwise_metrics(scores, terms, sums, num_resamples, 0))
    return seconds


# How often intervals hold the truth.

MODELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "calibrated": lambda confidence: confidence,
    "0.015 too sure": lambda confidence: (confidence - 0.015).clamp(0, 1),
    "0.04 too sure above 0.9": lambda confidence: torch.where(confidence > 0.9, confidence - 0.04, confidence),
    "far too sure": lambda confidence: confidence.square(),
}


def draw(num_rows: int, generator: torch.Generator) -> torch.Tensor:
    """Confidences, most of them high."""
    return 0.1 + 0.9 * torch.rand(num_rows, generator=generator, dtype=torch.float64) ** 0.35


def true_errors(model: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
    """The errors with the probabilities of being right in the place of outcomes, from many samples."""
    confidence = draw(2_000_000, torch.Generator().manual_seed(1)).sort(descending=True).values
    suite = CalibrationSuite(rank_samples(confidence, torch.zeros(len(confidence), dtype=torch.bool)))
    suite = replace(suite, ranking=replace(suite.ranking, positive=1 - model(confidence)))
    drawn = DrawnCalibration(suite, None)
    found = {name: float(metric(drawn)) for name, metric in CALIBRATION.items()}
    return found | {"ece_debiased": found["ece"]}


def measure_coverage(num_trials: int, num_resamples: int = 200) -> None:
    names = ["ece, percentiles", *CALIBRATION]
    print("model, samples | " + " | ".join(names))
    for title, model in MODELS.items():
        truth = true_errors(model)
        for num_rows in (200, 2_000, 20_000):
            hits = dict.fromkeys(names, 0)
            for trial in range(num_trials):
                generator = torch.Generator().manual_seed(trial)
                confidence = draw(num_rows, generator).round(decimals=12)
                errors = torch.rand(num_rows, generator=generator, dtype=torch.float64) > model(confidence)
                suite = CalibrationSuite(rank_samples(confidence, errors))
                for name, (low, high) in intervals(suite, num_resamples, generator).items():
                    hits[name] += low <= truth[name] <= high
                chunks = resampling_counts([num_rows], num_resamples, generator)
                low, high = percentile_interval(torch.cat([ece(confidence, errors, counts=c) for c in chunks]))
                hits["ece, percentiles"] += low <= truth["ece"] <= high
            shares = " | ".join(f"{count / num_trials:.3f}" for count in hits.values())
            print(f"{title}, {num_rows:,} | {shares}", flush=True)


def intervals(
    suite: CalibrationSuite, num_resamples: int, generator: torch.Generator
) -> dict[str, tuple[float, float]]:
    values = {name: float(metric(DrawnCalibration(suite, None))) for name, metric in CALIBRATION.items()}
    deviations = calibration_deviations(suite, values)
    found = bootstrap(
        values,
        lambda counts: deviations(DrawnCalibration(suite, counts)),
        [len(suite.ranking.scores)],
        num_resamples=num_resamples,
        generator=generator,
    )
    return {name: (estimate.low, estimate.high) for name, estimate in found.items()}


if __name__ == "__main__":
    main()
