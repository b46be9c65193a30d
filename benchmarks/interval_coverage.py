"""How often the 95 % intervals of the metrics hold the truth, of models whose truth is known.

    python benchmarks/interval_coverage.py [--trials 200] [--resamples 200]     # 15 minutes on one core

Three tables: calibration errors beside percentiles of resampled ones, which is what a user would take instead; the
metrics about all classes at once; accuracy, the coverage at a risk and the risk at a coverage. 0.95 is aimed at; more
is cautious.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch

from diffident import evaluate
from diffident.bootstrap import bootstrap, percentile_interval, resampling_counts
from diffident.metrics import coverage_at_risk, ece
from diffident.metrics.calibration import NUM_BINS, bin_of
from diffident.metrics.classwise import CLASSWISE_METRICS
from diffident.metrics.deviations import calibration_deviations
from diffident.metrics.ranking import rank_samples
from diffident.metrics.suite import CALIBRATION, COVERAGES, RISKS, CalibrationSuite, DrawnCalibration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    calibration_coverage(arguments.trials, arguments.resamples)
    classwise_coverage(arguments.trials, arguments.resamples)
    selective_coverage(arguments.trials, arguments.resamples)


def high(num_rows: int, generator: torch.Generator) -> torch.Tensor:
    """Confidences, most of them high."""
    return 0.1 + 0.9 * torch.rand(num_rows, generator=generator, dtype=torch.float64) ** 0.35


def highest(num_rows: int, generator: torch.Generator) -> torch.Tensor:
    """Confidences from 0.99."""
    return 0.99 + 0.01 * torch.rand(num_rows, generator=generator, dtype=torch.float64)


Curve = Callable[[torch.Tensor], torch.Tensor]
Draw = Callable[[int, torch.Generator], torch.Tensor]

MODELS: dict[str, tuple[Draw, Curve, tuple[int, ...]]] = {
    "calibrated": (high, lambda confidence: confidence, (200, 2_000, 20_000)),
    "calibrated, from 0.99": (highest, lambda confidence: confidence, (100, 300, 2_000)),
    "0.03 too sure, from 0.99": (highest, lambda confidence: confidence - 0.03, (100, 300, 2_000)),
    "0.015 too sure": (high, lambda confidence: (confidence - 0.015).clamp(0, 1), (200, 2_000, 20_000)),
    "0.04 too sure above 0.9": (
        high,
        lambda confidence: torch.where(confidence > 0.9, confidence - 0.04, confidence),
        (200, 2_000, 20_000),
    ),
    "far too sure": (high, lambda confidence: confidence.square(), (200, 2_000, 20_000)),
}
"""Confidences, the probability of being right, and numbers of samples."""

CLASSES = ((4, 300, 1.0), (10, 600, 1.0), (10, 600, 1.5), (100, 1_000, 1.0), (100, 1_000, 1.5), (150, 4_500, 1.0))
"""Number of classes, number of samples, and by what their logits are too large."""

RISKS_OF_COVERAGE: dict[str, Curve] = {
    "0.03": lambda place: torch.full_like(place, 0.03),
    "0.012": lambda place: torch.full_like(place, 0.012),
    "0.005, from 0.3 on 0.2": lambda place: torch.where(place < 0.3, 0.005, 0.2).to(place),
    "0.4 place^2": lambda place: 0.4 * place**2,
    "0.3 place^6": lambda place: 0.3 * place**6,
    "0, from 0.85 on 0.2": lambda place: torch.where(place < 0.85, 0.0, 0.2).to(place),
}
"""Probability of an error by the place in the order of confidence, in (0, 1)."""


def true_errors(draw: Draw, model: Curve) -> dict[str, float]:
    """The errors with the probabilities of being right in the place of outcomes, from many samples."""
    confidence = draw(2_000_000, torch.Generator().manual_seed(1)).sort(descending=True).values
    suite = CalibrationSuite(rank_samples(confidence, torch.zeros(len(confidence), dtype=torch.bool)))
    suite = replace(suite, ranking=replace(suite.ranking, positive=1 - model(confidence)))
    drawn = DrawnCalibration(suite, None)
    found = {name: float(metric(drawn)) for name, metric in CALIBRATION.items()}
    return found | {"ece_debiased": found["ece"]}


def calibration_coverage(num_trials: int, num_resamples: int) -> None:
    names = ["ece, percentiles", *CALIBRATION]
    print("model, samples | " + " | ".join(names))
    for title, (draw, model, sizes) in MODELS.items():
        truth = true_errors(draw, model)
        for num_rows in sizes:
            hits = dict.fromkeys(names, 0)
            for trial in range(num_trials):
                generator = torch.Generator().manual_seed(trial)
                confidence = draw(num_rows, generator).round(decimals=12)
                errors = torch.rand(num_rows, generator=generator, dtype=torch.float64) > model(confidence)
                suite = CalibrationSuite(rank_samples(confidence, errors))
                for name, (least, most) in intervals(suite, num_resamples, generator).items():
                    hits[name] += least <= truth[name] <= most
                chunks = resampling_counts([num_rows], num_resamples, generator)
                least, most = percentile_interval(torch.cat([ece(confidence, errors, counts=c) for c in chunks]))
                hits["ece, percentiles"] += least <= truth["ece"] <= most
            print_shares(f"{title}, {num_rows:,}", hits, num_trials)


def classwise_coverage(num_trials: int, num_resamples: int) -> None:
    """Of Gaussian logits, whose labels are drawn from them before they are scaled."""
    print("classes, samples, scale | " + " | ".join(CLASSWISE_METRICS))
    for num_classes, num_rows, scale in CLASSES:
        generator = torch.Generator().manual_seed(99)
        logits = 3 * torch.randn(5_000_000 // num_classes, num_classes, generator=generator, dtype=torch.float64)
        truth = true_classwise(logits.softmax(dim=1), (scale * logits).softmax(dim=1))
        hits = dict.fromkeys(CLASSWISE_METRICS, 0)
        for trial in range(num_trials):
            generator = torch.Generator().manual_seed(trial)
            logits = 3 * torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)
            labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
            metrics = evaluate(scale * logits, labels, num_resamples=num_resamples, seed=trial).metrics
            for name in CLASSWISE_METRICS:
                hits[name] += metrics[name].low <= truth[name] + 1e-12 and truth[name] - 1e-12 <= metrics[name].high
        print_shares(f"{num_classes}, {num_rows:,}, {scale}", hits, num_trials)


def true_classwise(probs: torch.Tensor, stated: torch.Tensor) -> dict[str, float]:
    """The classwise metrics with the probabilities of the labels in their place."""
    num_rows, num_classes = probs.shape
    cells = bin_of(stated, NUM_BINS) + NUM_BINS * torch.arange(num_classes)
    gaps = torch.bincount(cells.flatten(), weights=(stated - probs).flatten(), minlength=NUM_BINS * num_classes)
    sizes = torch.bincount(cells.flatten(), minlength=NUM_BINS * num_classes).clamp_min(1)
    reliability, uncertainty = float((gaps.square() / sizes).sum() / num_rows), 1 - 1 / num_classes
    brier = float((stated.square() - 2 * stated * probs).sum(dim=1).mean() + 1)
    parts = (
        reliability,
        reliability + uncertainty - brier,
        uncertainty,
        float(gaps.abs().sum() / num_rows / num_classes),
    )
    return dict(zip(CLASSWISE_METRICS, parts, strict=True))


def selective_coverage(num_trials: int, num_resamples: int) -> None:
    names = ("accuracy", "coverage_at_risk_1, percentiles", *RISKS, *COVERAGES)
    print("risk, samples | " + " | ".join(names))
    for title, curve in RISKS_OF_COVERAGE.items():
        place = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
        risk = curve(place).cumsum(0) / torch.arange(1, 200_001)
        truth = {name: float(((risk <= most) * (place + 0.5 / 200_000)).max()) for name, most in RISKS.items()}
        truth |= {name: float(risk[place >= least][0]) for name, least in COVERAGES.items()}
        truth["accuracy"] = 1 - float(risk[-1])
        for num_rows in (200, 1_000, 5_000):
            hits = dict.fromkeys(names, 0)
            for trial in range(num_trials):
                generator = torch.Generator().manual_seed(trial)
                place = torch.rand(num_rows, generator=generator, dtype=torch.float64)
                errors = torch.rand(num_rows, generator=generator, dtype=torch.float64) < curve(place)
                probs = torch.stack([1 - place / 2, place / 2], dim=1)
                metrics = evaluate(probs=probs, labels=errors.long(), num_resamples=num_resamples).metrics
                for name in truth:
                    hits[name] += metrics[name].low <= truth[name] <= metrics[name].high
                chunks = resampling_counts([num_rows], num_resamples, generator)
                drawn = [coverage_at_risk(1 - place, errors, RISKS["coverage_at_risk_1"], counts) for counts in chunks]
                low, high = percentile_interval(torch.cat(drawn))
                hits["coverage_at_risk_1, percentiles"] += low <= truth["coverage_at_risk_1"] <= high
            print_shares(f"{title}, {num_rows:,}", hits, num_trials)


def print_shares(title: str, hits: dict[str, int], num_trials: int) -> None:
    print(f"{title} | " + " | ".join(f"{count / num_trials:.3f}" for count in hits.values()), flush=True)


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
