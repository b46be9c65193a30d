import math
from dataclasses import astuple

import pytest
import torch

from diffident.bootstrap import (
    Deviations,
    bootstrap,
    estimate_of,
    join_draws,
    percentile_interval,
    resampling_counts,
)
from diffident.errors import InputError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_stratum_keeps_its_size():
    counts = torch.cat(list(resampling_counts([3, 5], 20, generator())))
    assert counts.shape == (20, 8)
    assert (counts[:, :3].sum(1) == 3).all()
    assert (counts[:, 3:].sum(1) == 5).all()


def test_chunks_bound_the_memory_and_change_nothing():
    whole = list(resampling_counts([10], 7, generator()))
    chunks = list(resampling_counts([10], 7, generator(), max_elements=25))
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 1]
    assert torch.equal(torch.cat(chunks), whole[0])


def test_interval_of_a_mean_is_the_normal_one():
    terms = torch.randn(2000, generator=generator(), dtype=torch.float64)
    value = terms.mean().item()
    found = bootstrap(
        {"m": value}, lambda c: {"m": c @ terms / 2000}, [2000], num_resamples=2000, generator=generator(1)
    )
    assert (found["m"].high - found["m"].low) / 2 == pytest.approx(1.96 * terms.std().item() / 2000**0.5, rel=0.08)


def test_deviations_are_subtracted_cut_and_hold_the_value():
    deviations = Deviations(torch.tensor([0.1, 0.3]), torch.tensor([-0.2, 0.1]))
    assert astuple(estimate_of(0.5, deviations, level=1.0)) == pytest.approx((0.5, 0.2, 0.7))
    assert estimate_of(0.25, deviations, level=1.0).low == 0
    assert estimate_of(0.95, deviations, level=1.0).high == 1
    assert astuple(estimate_of(0.5, torch.tensor([0.6, 0.7]))) == pytest.approx((0.5, 0.5, 0.6975))
    assert math.isnan(estimate_of(math.nan, deviations).low)


def test_draws_of_chunks_are_joined():
    first, second = Deviations(torch.zeros(2), torch.ones(2), ceiling=2.0), Deviations(torch.ones(1), torch.zeros(1))
    joined = join_draws([first, second])
    assert (joined.fall.tolist(), joined.rise.tolist(), joined.ceiling) == ([0, 0, 1], [1, 1, 0], 2.0)
    assert join_draws([torch.zeros(1), torch.ones(1)]).tolist() == [0, 1]


def test_percentiles_leave_out_undefined_resamples():
    assert percentile_interval(torch.tensor([math.nan, 0.0, 10.0]), 0.5) == (2.5, 7.5)
    assert all(math.isnan(end) for end in percentile_interval(torch.tensor([math.nan])))


def test_no_resamples_no_interval():
    estimate = bootstrap({"n": 4.0}, lambda c: {"n": c.sum(1)}, [4], num_resamples=0, generator=generator())["n"]
    assert estimate.value == 4
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_bad_numbers():
    with pytest.raises(InputError, match="`num_resamples` must be at least 0; got -1"):
        next(resampling_counts([3], -1, generator()))
    with pytest.raises(InputError, match="`sizes` must be"):
        next(resampling_counts([3, 0], 1, generator()))
