"""Hand-computed weights, each of which fails where a normaliser, the temperature or the scaling to 1 is changed."""

import math

import numpy as np
import pytest
import torch

from diffident.difficulties.weights import MOST_DISTRUST, NORMALIZERS, difficulty_weights, scaled_rank
from diffident.errors import InputError, ShapeError

# Mean 4, standard deviation 3 (divided by n, not n - 1), and not symmetric, so that no two normalisers agree.
VALUES = [1.0, 1.0, 7.0, 7.0, 4.0, 4.0, 1.0, 7.0]
LOPSIDED = [0.0, 1.0, 2.0, 9.0]


def expected(normalised, temperature):
    return [math.exp((one - max(normalised)) / temperature) for one in normalised]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(
    ("normalizer", "normalised"),
    [
        ("rank", [0, 1 / 3, 2 / 3, 1]),
        ("minmax", [0, 1 / 9, 2 / 9, 1]),
        ("standard", [-3 / 12.5**0.5, -2 / 12.5**0.5, -1 / 12.5**0.5, 6 / 12.5**0.5]),
        ("none", [0, 1, 2, 9]),
    ],
)
def test_every_normaliser_at_every_temperature(normalizer, normalised, temperature):
    weights = difficulty_weights(np.array(LOPSIDED), normalizer, temperature)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights, expected(normalised, temperature), rtol=1e-6)


def test_standard_deviation_is_that_of_the_samples_at_hand():
    weights = difficulty_weights(torch.tensor(VALUES), "standard", 1.0)
    deviation = math.sqrt(sum((value - 4) ** 2 for value in VALUES) / 8)
    np.testing.assert_allclose(weights, [math.exp((value - 7) / deviation) for value in VALUES], rtol=1e-6)


def test_ties_share_the_mean_of_their_ranks():
    assert scaled_rank(np.array(VALUES)).tolist() == pytest.approx(
        [1 / 7, 1 / 7, 6 / 7, 6 / 7, 3.5 / 7, 3.5 / 7, 1 / 7, 6 / 7]
    )
    assert scaled_rank(np.array([5.0])).tolist() == [0]
    assert scaled_rank(np.array([2.0, 2.0])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_weights_rise_with_difficulty_and_end_at_one(normalizer):
    weights = difficulty_weights(torch.tensor(LOPSIDED), normalizer)
    assert (weights.diff() > 0).all()
    assert weights[-1] == 1


@pytest.mark.parametrize(
    ("normalizer", "invariant"), [("rank", True), ("minmax", True), ("standard", True), ("none", False)]
)
def test_all_but_none_ignore_scale_and_offset(normalizer, invariant):
    values = torch.tensor(LOPSIDED, dtype=torch.float64)
    moved = difficulty_weights(values * 3 + 100, normalizer, 0.7)
    assert torch.allclose(moved, difficulty_weights(values, normalizer, 0.7)) == invariant


@pytest.mark.parametrize(
    ("normalizer", "invariant"), [("rank", True), ("minmax", False), ("standard", False), ("none", False)]
)
def test_rank_alone_ignores_a_monotone_map(normalizer, invariant):
    values = torch.tensor(LOPSIDED, dtype=torch.float64)
    assert (
        torch.allclose(difficulty_weights(values**3, normalizer, 0.7), difficulty_weights(values, normalizer, 0.7))
        == invariant
    )


def test_a_lower_temperature_favours_the_hardest():
    cold, warm = (difficulty_weights(torch.tensor(LOPSIDED), temperature=t) for t in (0.1, 10.0))
    assert (cold[:-1] < warm[:-1]).all()
    assert difficulty_weights(torch.tensor(LOPSIDED), temperature=1e9).tolist() == pytest.approx([1] * 4)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_one_sample_weighs_one(normalizer):
    assert difficulty_weights(torch.tensor([-3.0]), normalizer).tolist() == [1]


def test_default_is_rank_at_seven_tenths():
    values = torch.tensor(LOPSIDED)
    assert difficulty_weights(values).equal(difficulty_weights(values, "rank", 0.7))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_labels_that_are_not_believed_are_left_out_of_everything(normalizer):
    difficulty, distrust = np.array([*LOPSIDED, 99.0, 50.0]), np.array([0.0, 0.1, MOST_DISTRUST, 0.0, 1.0, 0.21])
    weights = difficulty_weights(difficulty, normalizer, distrust=distrust)
    assert weights[4:].tolist() == [2, 2]
    torch.testing.assert_close(weights[:4], difficulty_weights(np.array(LOPSIDED), normalizer))


@pytest.mark.parametrize(
    ("distrust", "message"),
    [
        ([0.0, 1.5, 0.0], r"`distrust` must be in \[0, 1\]; got 1.5 at row 1\. Score the samples again\."),
        ([0.0, 0.0, float("nan")], r"`distrust` must be in \[0, 1\]; got nan at row 2\."),
        (
            [0.9, 0.5, 0.3],
            r"`distrust` must be at most 0.2 somewhere; all 3 are above\. Leave it out, or set distrust=false\.",
        ),
    ],
)
def test_wrong_distrust_is_refused(distrust, message):
    with pytest.raises(InputError, match=message):
        difficulty_weights(np.arange(3.0), distrust=np.array(distrust))


def test_another_number_of_distrusts_is_refused():
    with pytest.raises(ShapeError, match=r"`distrust` must have shape \[3\], one per sample; got \[2\]\."):
        difficulty_weights(np.arange(3.0), distrust=np.zeros(2))
