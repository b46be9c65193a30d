import math

import pytest

from diffident.comparison import Spread, compare
from diffident.errors import InputError
from diffident.records import Estimate, Evaluation


def run(nll, auroc=None, num_samples=10):
    ood = {} if auroc is None else {"svhn": {"auroc": Estimate(auroc, 0.0, 1.0)}}
    return Evaluation({"nll": Estimate(nll, 0.0, 1.0)}, num_samples, 3, ood)


def test_mean_spread_and_paired_differences():
    runs = [("ce", 0, run(1.0)), ("ce", 1, run(3.0)), ("da", 1, run(2.0)), ("da", 0, run(1.0)), ("da", 7, run(9.0))]
    ce, da = compare(runs, baseline="ce").rows
    assert ce.metrics["nll"] == Spread(2.0, math.sqrt(2), 2)
    assert (da.seeds, da.num_seeds, da.metrics["nll"].mean) == ((0, 1, 7), 3, 4.0)
    assert da.differences["nll"] == Spread(-0.5, math.sqrt(0.5), 2)
    assert ce.differences == {}


def test_ood_keys_and_missing_or_undefined_metrics():
    comparison = compare([("a", 0, run(1.0, 0.9)), ("b", 0, run(math.nan))], baseline="a")
    assert comparison.metrics == ("nll", "ood/svhn/auroc")
    assert comparison.rows[0].metrics["ood/svhn/auroc"].mean == 0.9
    assert math.isnan(comparison.rows[0].metrics["nll"].standard_deviation)
    assert comparison.rows[1].metrics["nll"].num_seeds == 0
    assert math.isnan(comparison.rows[1].differences["ood/svhn/auroc"].mean)


def test_wrong_input():
    with pytest.raises(InputError, match="at least one run"):
        compare([])
    with pytest.raises(InputError, match="Did you mean `entropy`"):
        compare([("entropy", 0, run(1.0))], baseline="entropi")
    with pytest.raises(InputError, match="'a', seed 0 twice"):
        compare([("a", 0, run(1.0)), ("a", 0, run(1.0))])
    with pytest.raises(InputError, match="got 11 samples and 3 classes at 'b', seed 0, but 10 and 3"):
        compare([("a", 0, run(1.0)), ("b", 0, run(1.0, num_samples=11))])
