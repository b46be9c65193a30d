import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles_gaussian import covariances, distances

from diffident.errors import InputError, ShapeError
from diffident.gaussian import (
    GaussianStatistics,
    background_squared_distance,
    fit_gaussians,
    leave_one_out_distances,
    nearest_classes,
    relative_squared_distance,
    relative_squared_distances,
    solve_gaussians,
    squared_distances,
    statistics,
)
from diffident.gaussian import distances as gaussian_distances
from diffident.gaussian.blocks import checked


def make_data(n: int = 120, d: int = 6, k: int = 4, seed: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    means = torch.randn(k, d, generator=generator, dtype=torch.float64)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    values = means[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing
    return values.to(dtype), labels


def own(table, labels):
    return table.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_distances_agree_with_the_loops(shrinkage):
    values, labels = make_data()
    state = fit_gaussians(values, labels, shrinkage=shrinkage)
    classes, background = distances(values.numpy(), labels.numpy(), shrinkage)
    np.testing.assert_allclose(squared_distances(state, values), classes, rtol=1e-9)
    np.testing.assert_allclose(background_squared_distance(state, values), background, rtol=1e-9)
    np.testing.assert_allclose(relative_squared_distances(state, values), classes - background[:, None], atol=1e-9)
    expected = classes[np.arange(len(labels)), labels] - background
    np.testing.assert_allclose(relative_squared_distance(state, values, labels), expected, atol=1e-9)


@pytest.mark.parametrize("width", [127, 128, 300])
def test_panels_of_a_triangular_whitening_agree_with_the_loops(width):
    values, labels = make_data(n=700, d=width)
    state = fit_gaussians(values, labels, shrinkage=0.1)
    assert not state.whitening.tril(-1).any()
    _, background = distances(values.numpy(), labels.numpy(), 0.1)
    np.testing.assert_allclose(background_squared_distance(state, values), background, rtol=1e-8)


def test_hand_computed_case():
    # Class means -1 and 1, Sigma_w = 1, Sigma_t = 2: r of z = 2 in class 1 is (2 - 1)^2 / 1 - 2^2 / 2 = -1.
    values = torch.tensor([[-2.0], [0.0], [0.0], [2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    state = fit_gaussians(values, labels, shrinkage=0.0)
    assert relative_squared_distance(state, values, labels).tolist() == pytest.approx([-1, 1, 1, -1])
    assert relative_squared_distances(state, values)[3].tolist() == pytest.approx([9 - 2, 1 - 2])


def test_identities():
    values, labels = make_data()
    state = fit_gaussians(values, labels, shrinkage=0.0)
    assert own(squared_distances(state, values), labels).mean() == pytest.approx(6)
    assert background_squared_distance(state, values).mean() == pytest.approx(6)
    assert float(relative_squared_distance(state, values, labels).mean()) == pytest.approx(0, abs=1e-10)
    within, total = covariances(values.numpy(), labels.numpy())
    np.testing.assert_allclose(state.within, within, atol=1e-10)
    np.testing.assert_allclose(state.within + state.between, total, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_difficulty_does_not_change_under_affine_maps(seed):
    values, labels = make_data(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    mapped = values @ (q * torch.linspace(0.2, 5, 6, dtype=torch.float64)) + 100
    before = relative_squared_distance(fit_gaussians(values, labels, shrinkage=0.0), values, labels)
    after = relative_squared_distance(fit_gaussians(mapped, labels, shrinkage=0.0), mapped, labels)
    torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-6)


def test_at_most_one_direction_less_than_classes():
    values, labels = make_data(k=4)
    assert fit_gaussians(values, labels).projected_means.shape == (4, 3)


def test_merged_statistics_are_those_of_one_pass():
    values, labels = make_data()
    first = GaussianStatistics.start(values[:50], 4).updated(values[:50], labels[:50])
    second = GaussianStatistics.start(values[50:] + 0, 4).updated(values[50:], labels[50:])
    merged = solve_gaussians(first.merge(second), 0.0)
    whole = fit_gaussians(values, labels, shrinkage=0.0)
    torch.testing.assert_close(merged.within, whole.within)
    torch.testing.assert_close(merged.means, whole.means)


def test_statistics_without_samples_are_those_of_the_rest():
    values, labels = make_data()
    part = GaussianStatistics.start(values[70:], 4).updated(values[70:], labels[70:])
    rest = GaussianStatistics.start(values, 4).updated(values, labels).without(part)
    expected = fit_gaussians(values[:70], labels[:70], shrinkage=0.0)
    left = solve_gaussians(rest, 0.0)
    torch.testing.assert_close(left.within, expected.within)
    torch.testing.assert_close(left.means, expected.means)


def test_float32_with_a_mean_a_thousand_times_the_spread_is_exact_enough():
    generator = torch.Generator().manual_seed(0)
    values, labels = make_data(n=2000, d=40)
    scales = torch.logspace(0, -2, 40, dtype=torch.float64)  # condition number about 1e4 and more
    values = (torch.randn(2000, 40, generator=generator, dtype=torch.float64) + values * 0.1) * scales
    values = (values + 1000 * values.std(dim=0)).float()
    state = fit_gaussians(values, labels, shrinkage=0.0)
    got = relative_squared_distance(state, values, labels).numpy()
    classes, background = distances(values.double().numpy(), labels.numpy())
    expected = classes[np.arange(2000), labels] - background
    assert np.abs(got - expected).max() <= 1e-3 * expected.std()


def test_singletons_absent_classes_and_constant_features_are_reported():
    values, labels = make_data(n=40)
    values[:, 2] = 7.0
    labels = labels.clone()
    labels[labels == 3] = 5
    labels[0] = 4
    state = fit_gaussians(values, labels, num_classes=7)
    assert state.singleton_classes == [4]
    assert state.absent_classes == [3, 6]
    assert state.constant_features == 1
    scores = relative_squared_distances(state, values)
    assert torch.isinf(scores[:, [3, 6]]).all()
    assert scores[:, [0, 1, 2, 4, 5]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_deficient_features_keep_their_rank_without_shrinkage(dtype):
    values, labels = make_data(d=6)
    twice = torch.cat([values, values @ torch.ones(6, 2, dtype=torch.float64)], dim=1).to(dtype)
    state = fit_gaussians(twice, labels, shrinkage=0.0)
    assert state.rank == 6
    expected = relative_squared_distance(fit_gaussians(values, labels, shrinkage=0.0), values, labels)
    torch.testing.assert_close(relative_squared_distance(state, twice, labels), expected, atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("shrinkage", ["auto", 0.0])
@pytest.mark.parametrize("values", [torch.ones(6, 3), torch.eye(6)])
def test_no_scatter_within_classes_gives_zeros(values, shrinkage):
    labels = torch.arange(6) if values.shape[1] == 6 else torch.arange(6) % 2
    state = fit_gaussians(values, labels, shrinkage=shrinkage)
    assert relative_squared_distance(state, values, labels).tolist() == [0.0] * 6


def test_one_sample():
    state = fit_gaussians(torch.ones(1, 3), torch.zeros(1, dtype=torch.int64))
    assert relative_squared_distance(state, torch.ones(1, 3), torch.zeros(1, dtype=torch.int64)).tolist() == [0.0]


def test_automatic_shrinkage_falls_with_the_number_of_samples():
    few = fit_gaussians(*make_data(n=16, d=6)).shrinkage
    many = fit_gaussians(*make_data(n=4000, d=6)).shrinkage
    assert many < 0.01 < few


def test_nan_is_named_by_row():
    values, labels = make_data()
    values[17, 2] = float("nan")
    with pytest.raises(InputError, match=r"^`values` must be finite; got NaN or infinity at row 17\. Mend"):
        fit_gaussians(values, labels)


def test_labels_that_are_no_integers_and_features_of_no_width():
    with pytest.raises(InputError, match=r"`labels` must be integers; got torch\.float32\. Convert them to int64\."):
        checked(torch.eye(3), torch.tensor([0.0, 1.0, 1.0]), 3, 2)
    with pytest.raises(ShapeError, match=r"with n and d at least 1; got \(3, 0\)"):
        fit_gaussians(torch.zeros(3, 0), torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_arrays_give_what_tensors_give(kind):
    values, labels = make_data()
    rows, classes = values.numpy().astype(">f4"), labels.numpy().astype(kind)
    gaussians, ours = fit_gaussians(rows, classes), fit_gaussians(values.float(), labels)
    for function in (relative_squared_distance, nearest_classes):
        found, expected = function(gaussians, rows, classes), function(ours, values.float(), labels)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    fitted = np.ones(len(rows), dtype=bool)
    found = leave_one_out_distances(gaussians, rows, classes, fitted)
    assert torch.equal(found, leave_one_out_distances(ours, values.float(), labels, torch.from_numpy(fitted)))
    for function in (relative_squared_distances, squared_distances, background_squared_distance):
        assert torch.equal(function(gaussians, rows), function(ours, values.float()))
    with pytest.raises(InputError, match="`labels` must be an array of numbers; got dtype <U1"):
        checked(rows, np.array(["a"] * len(rows)), 6, 4)


def test_label_out_of_range_is_named_by_row():
    values, labels = make_data()
    with pytest.raises(InputError, match=r"`labels` must be in \[0, 2\); got 2 at row 2\. Re-index .* num_classes=4\."):
        fit_gaussians(values, labels, num_classes=2)


def test_a_label_of_an_absent_class_is_refused():
    values, labels = make_data()
    state = fit_gaussians(values, labels, num_classes=5)
    with pytest.raises(InputError, match="got class 4 at row 0"):
        relative_squared_distance(state, values[:1], torch.tensor([4]))


def test_another_width_is_refused():
    values, labels = make_data()
    with pytest.raises(ShapeError, match=r"`values` must be \[n, 6\]; got \(120, 5\)"):
        squared_distances(fit_gaussians(values, labels), values[:, :5])


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, "much"])
def test_wrong_shrinkage_is_refused(shrinkage):
    with pytest.raises(InputError, match="`shrinkage` must be `auto` or in"):
        fit_gaussians(*make_data(), shrinkage=shrinkage)


@pytest.mark.parametrize("k", [3, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_classes_agree_with_the_loops(k, dtype):
    values, labels = make_data(n=90, k=k, dtype=dtype)
    state = fit_gaussians(values, labels, shrinkage=0.0)
    difficulty, nearest, margin = nearest_classes(state, values, labels)
    classes, background = distances(values.double().numpy(), labels.numpy())
    relative = classes - background[:, None]
    chosen = relative[np.arange(90), labels]
    np.testing.assert_allclose(difficulty, chosen, atol=1e-4 if dtype == torch.float32 else 1e-9)
    assert nearest.tolist() == relative.argmin(axis=1).tolist()
    np.testing.assert_allclose(margin, chosen - relative.min(axis=1), atol=1e-4)
    assert ((margin == 0) == (nearest == labels)).all()


def test_nearest_class_among_ties_is_the_label():
    values = torch.tensor([[-2.0], [0.0], [0.0], [2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    _, nearest, margin = nearest_classes(fit_gaussians(values, labels, shrinkage=0.0), values, labels)
    assert nearest.tolist() == [0, 0, 1, 1]
    assert margin.tolist() == [0.0] * 4


def test_absent_classes_are_never_nearest():
    values, labels = make_data()
    _, nearest, margin = nearest_classes(fit_gaussians(values, labels, num_classes=9), values, labels)
    assert nearest.max() <= 3
    assert margin.isfinite().all()


def test_blocks_do_not_change_the_result(monkeypatch):
    values, labels = make_data(n=700, dtype=torch.float32)
    whole = nearest_classes(fit_gaussians(values, labels), values, labels)
    monkeypatch.setattr(statistics, "_FIT_ROWS", 64)
    monkeypatch.setattr(gaussian_distances, "_SCORE_ROWS", 33)
    for before, after in zip(whole, nearest_classes(fit_gaussians(values, labels), values, labels), strict=True):
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_nothing_to_score_gives_nothing():
    values, labels = make_data()
    state = fit_gaussians(values, labels)
    assert relative_squared_distance(state, values[:0], labels[:0]).shape == (0,)
    assert [part.shape for part in nearest_classes(state, values[:0], labels[:0])] == [(0,)] * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_a_later_block_of_the_scored_is_named_by_row(bad, monkeypatch):
    monkeypatch.setattr(gaussian_distances, "_SCORE_ROWS", 50)
    values, labels = make_data()
    state = fit_gaussians(values, labels)
    values[73, 1] = bad
    with pytest.raises(InputError, match=r"NaN or infinity at row 73\."):
        nearest_classes(state, values, labels)


def test_values_whose_squares_overflow_are_refused():
    values, labels = make_data(dtype=torch.float32)
    with pytest.raises(
        InputError, match=r"`values` must be below 1e18, so that their squares fit; got .* from row 0 on"
    ):
        fit_gaussians(values * 1e25, labels)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_scores():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    values, labels = make_data(n=700, d=40, dtype=torch.float32)
    expected = nearest_classes(fit_gaussians(values, labels), values, labels)
    values, labels = values.cuda(), labels.cuda()
    for got, want in zip(nearest_classes(fit_gaussians(values, labels), values, labels), expected, strict=True):
        torch.testing.assert_close(got.cpu(), want, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_of_very_different_scales_all_count(dtype):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 2
    values = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    values[:, 1] += 2 * labels
    expected = relative_squared_distance(fit_gaussians(values, labels, shrinkage=0.0), values, labels)
    scaled = (values * torch.tensor([1e4, 1.0, 1.0], dtype=torch.float64)).to(dtype)
    state = fit_gaussians(scaled, labels, shrinkage=0.0)
    assert (state.rank, state.constant_features) == (3, 0)
    assert state.condition_number == pytest.approx(1e8, rel=0.5)
    torch.testing.assert_close(relative_squared_distance(state, scaled, labels), expected, atol=2e-3, rtol=2e-3)


def test_condition_number_is_that_before_shrinkage():
    values, labels = make_data()
    numbers = [fit_gaussians(values, labels, shrinkage=amount).condition_number for amount in (0.0, 0.5, 1.0)]
    assert numbers == pytest.approx([numbers[0]] * 3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_leaving_one_out_is_fitting_without_it(shrinkage):
    values, labels = make_data(n=24, d=3, k=4)
    labels[labels == 3] = 2  # classes of other sizes, and one of none
    state = fit_gaussians(values, labels, num_classes=5, shrinkage=shrinkage)
    z, y, size = values.numpy(), labels.numpy(), len(labels)
    fitted = torch.arange(size) % 5 > 0
    got = leave_one_out_distances(state, values, labels, fitted)
    within, _ = covariances(z, y)
    target = shrinkage * np.eye(3) * np.trace(within) / 3
    for row, sample in enumerate(z):
        rest = np.arange(size) != row if fitted[row] else np.ones(size, dtype=bool)
        scatter = covariances(z[rest], y[rest])[0] * rest.sum()
        shrunk = (1 - shrinkage) * scatter / size + target
        background = float(background_squared_distance(state, values[row : row + 1]))
        for k in range(3):
            apart = sample - z[rest & (y == k)].mean(axis=0)
            expected = apart @ np.linalg.solve(shrunk, apart) / (1 + 1 / (rest & (y == k)).sum()) - background
            assert float(got[row, k]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert got[row, 3:].tolist() == [np.inf, np.inf]


def test_a_class_of_one_sample_keeps_it():
    values, labels = make_data(n=21, k=3)
    labels[0] = 3
    state = fit_gaussians(values, labels)
    every = torch.ones(21, dtype=torch.bool)
    background = background_squared_distance(state, values)
    got = leave_one_out_distances(state, values, labels, every)
    assert float(got[0, 3] + background[0]) == pytest.approx(0, abs=1e-9)
    assert leave_one_out_distances(state, values[:0], labels[:0], every[:0]).shape == (0, 4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 1e6 / 3])
def test_what_rounding_leaves_of_a_constant_feature_is_not_brought_to_unit_spread(constant):
    values, labels = make_data()
    more = torch.cat([values, torch.full((len(values), 1), constant, dtype=values.dtype)], dim=1)
    alone, state = fit_gaussians(values, labels, shrinkage=0.0), fit_gaussians(more, labels, shrinkage=0.0)
    assert (state.rank, state.constant_features) == (alone.rank, 1)
    assert state.condition_number == pytest.approx(alone.condition_number)
    expected = relative_squared_distance(alone, values, labels)
    torch.testing.assert_close(relative_squared_distance(state, more, labels), expected)


def test_no_samples_have_no_distances():
    values, labels = make_data()
    assert squared_distances(fit_gaussians(values, labels), values[:0]).shape == (0, 4)


def test_features_that_are_being_trained_are_scored():
    values, labels = make_data()
    trained = values.clone().requires_grad_()
    found = relative_squared_distance(fit_gaussians(trained, labels), trained, labels)
    assert torch.equal(found, relative_squared_distance(fit_gaussians(values, labels), values, labels))
