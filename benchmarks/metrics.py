"""Metrics: speed and memory against peers, and speed of the intervals.

    python benchmarks/metrics.py peers [--rows 1000000] [--classes 100] [--repeats 3]     # about 2 GB of memory
    python benchmarks/metrics.py intervals [--rows 50000] [--classes 1000] [--resamples 1000]

`peers`: every library in a process of its own, on the same float32 probabilities; all metrics that it has, from the
probabilities on, on one thread; seconds are the processor's, which other work on the machine changes little. Ours is
`MetricAccumulator` in batches of 10,000 rows: all metrics at once, in float64. Peers (pip install torchmetrics
torch-uncertainty netcal) that are not installed are left out.

`intervals`: `evaluate` with intervals, the classwise metrics (which go through all probabilities again) apart.
How often they hold the truth: interval_coverage.py.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from diffident.metrics.streaming import MetricAccumulator

BATCH = 10_000
LIBRARIES = ("diffident", "torchmetrics", "torch-uncertainty", "netcal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "intervals", "worker"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=1000)
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
    else:
        print(
            json.dumps(
                time_intervals(arguments.rows or 50_000, arguments.classes or 1000, arguments.resamples), indent=2
            )
        )


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

    def drew(samples: int) -> None:
        """What `evaluate` tells its progress."""

    scores = check_logits(logits, "logits", probs_as="")
    terms, sums = timed("terms of the samples", lambda: sample_terms(scores, labels))
    timed("all but the classwise", lambda: evaluation._sample_metrics(terms, num_resamples, 0, drew))
    timed("classwise", lambda: evaluation._classwise_metrics(scores, terms, sums, num_resamples, 0, drew))
    return seconds


if __name__ == "__main__":
    main()
