"""The frequency of the class in the bin of its probability, for every class, then rows brought to sum 1.

Bins are right-closed, as in `metrics.calibration`: of equal width, or of equal mass, in which the calibration samples
are shared evenly (ties stay in one bin). A bin without samples gives its middle. Frequencies of 0 are raised to
1 / (n c), see `one_vs_rest`.

Reference:
    Zadrozny and Elkan 2001; Guo et al. 2017, arXiv 1706.04599, section 4.1.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators.one_vs_rest import class_probs, joined
from diffident.calibrators.protocol import check_width, make_options
from diffident.errors import InputError
from diffident.metrics.calibration import bin_edges, inner_edges
from diffident.options import check_choice, check_whole


@dataclass(frozen=True)
class HistogramOptions:
    """Options of `histogram`.

    Attributes:
        bins: Number of bins of every class.
        binning: `equal-width` or `equal-mass`.
    """

    bins: int = 15
    binning: str = "equal-width"

    def __post_init__(self):
        check_whole("bins", self.bins, 1)
        check_choice("binning", self.binning, ("equal-width", "equal-mass"))


@dataclass(frozen=True)
class HistogramMaps:
    """A step function for every class.

    Attributes:
        edges: Inner edges of the bins (c, b - 1), float64.
        frequencies: What every bin gives (c, b), float64.
        num_fitted: Size of the calibration split.
    """

    edges: Float[Tensor, "c e"]
    frequencies: Float[Tensor, "c b"]
    num_fitted: int

    def __post_init__(self):
        wanted = [len(self.edges), self.edges.shape[1] + 1]
        if list(self.frequencies.shape) != wanted:
            raise InputError(
                f"`frequencies` must have shape {wanted}; got {list(self.frequencies.shape)}. Fit it again."
            )
        if self.num_fitted < 1:
            raise InputError(f"`num_fitted` must be at least 1; got {self.num_fitted}. Fit it again.")


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> HistogramMaps:
    """Count the samples and those of the class in every bin; options: `HistogramOptions`."""
    chosen = make_options(HistogramOptions, "histogram", options)
    probs = class_probs(logits)
    if chosen.binning == "equal-width":
        edges = inner_edges(chosen.bins).repeat(len(probs), 1)
    else:
        inner = bin_edges(chosen.bins)[1:-1]
        edges = torch.quantile(probs, inner, dim=1).T.contiguous() if len(inner) else probs[:, :0]
    bins = torch.searchsorted(edges, probs)
    hits = (labels == torch.arange(len(probs))[:, None]).double()
    zeros = probs.new_zeros(len(probs), chosen.bins)
    counts = zeros.scatter_add(1, bins, torch.ones_like(probs))
    frequencies = zeros.scatter_add(1, bins, hits) / counts
    outer = torch.nn.functional.pad(edges, (1, 0), value=0.0), torch.nn.functional.pad(edges, (0, 1), value=1.0)
    return HistogramMaps(edges, torch.where(counts > 0, frequencies, (outer[0] + outer[1]) / 2), len(labels))


def calibrate(state: HistogramMaps, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of the frequencies of the bins, normalised."""
    check_width(logits, len(state.frequencies))
    bins = torch.searchsorted(state.edges, class_probs(logits))
    return joined(state.frequencies.gather(1, bins), state.num_fitted)


def describe(state: HistogramMaps) -> dict[str, Any]:
    """Number of bins."""
    return {"bins": state.frequencies.shape[1]}
