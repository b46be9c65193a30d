"""Metrics as pure functions of tensors. Each takes `counts` [r, n] to give its value on r resamples at once."""

from diffident.metrics.accuracy import accuracy, brier, nll
from diffident.metrics.calibration import ReliabilityBins, classwise_ece, ece, reliability_bins
from diffident.metrics.detection import aupr, auroc, auroc_errors, fpr95, fpr95_errors
from diffident.metrics.selective import augrc, aurc, eaurc, risk_coverage

__all__ = [
    "ReliabilityBins",
    "accuracy",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "auroc_errors",
    "brier",
    "classwise_ece",
    "eaurc",
    "ece",
    "fpr95",
    "fpr95_errors",
    "nll",
    "reliability_bins",
    "risk_coverage",
]
