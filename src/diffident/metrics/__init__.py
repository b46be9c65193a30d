"""Metrics as pure functions of tensors. Each takes `counts` [r, n] to give its value on r resamples at once."""

from diffident.metrics.accuracy import accuracy, brier, nll, overconfidence
from diffident.metrics.calibration import (
    ReliabilityBins,
    ece,
    ece_debiased,
    ece_equal_mass,
    ece_of_chance,
    ks_error,
    mce,
    reliability_bins,
)
from diffident.metrics.classwise import brier_parts, classwise_ece
from diffident.metrics.detection import aupr, aupr_errors, auroc, auroc_errors, fpr95, fpr95_errors
from diffident.metrics.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    eaurc,
    risk_at_coverage,
    risk_coverage,
)
from diffident.metrics.smoothing import ece_smooth

__all__ = [
    "ReliabilityBins",
    "accuracy",
    "augrc",
    "aupr",
    "aupr_errors",
    "aurc",
    "auroc",
    "auroc_errors",
    "brier",
    "brier_parts",
    "classwise_ece",
    "coverage_at_risk",
    "eaurc",
    "ece",
    "ece_debiased",
    "ece_equal_mass",
    "ece_of_chance",
    "ece_smooth",
    "fpr95",
    "fpr95_errors",
    "ks_error",
    "mce",
    "nll",
    "overconfidence",
    "reliability_bins",
    "risk_at_coverage",
    "risk_coverage",
]
