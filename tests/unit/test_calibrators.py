import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from diffident.calibrators import calibrate, check_disjoint, fit_calibrator
from diffident.calibrators.temperature import fit as fit_temperature
from diffident.errors import IdMismatchError


def sample(n=400, c=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 2
    shifted = logits * 0.5 + torch.linspace(-1, 1, c)
    return logits, torch.multinomial(torch.softmax(shifted, dim=1), 1, generator=generator)[:, 0]


def nll(logits, labels):
    return -torch.log_softmax(logits, dim=1).gather(1, labels[:, None]).mean()


def fitted_by_hand(name, logits, labels, **options):
    return fit_calibrator(name, torch.tensor(logits), torch.tensor(labels), **options)


def zero_sum(logits):
    return logits - logits.mean(dim=1, keepdim=True)


def slopes_of(objective, *parameters):
    """Gradient of what a fit should minimise, where it ended."""
    tracked = [parameter.clone().requires_grad_() for parameter in parameters]
    return torch.cat([slope.flatten() for slope in torch.autograd.grad(objective(*tracked), tracked)])


def test_temperature_by_hand():
    # Two of three have probability 2/3 where 2 / T = log 2.
    state = fitted_by_hand("temperature", [[2.0, 0.0]] * 3, [0, 0, 1]).state
    assert state.temperature == pytest.approx(2 / math.log(2), rel=1e-12)
    assert not state.at_bound


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_temperature_agrees_with_brent(seed, scale):
    logits, labels = sample(seed=seed)
    found = minimize_scalar(lambda t: float(nll(logits / math.exp(t), labels)), (0, 1), tol=1e-12)
    fitted = fit_calibrator("temperature", logits * scale, labels)
    assert fitted.state.temperature == pytest.approx(scale * math.exp(found.x), rel=1e-6)
    assert fitted.nll_after == pytest.approx(found.fun, rel=1e-12)


def test_temperature_is_held_where_every_label_or_none_is_the_largest_logit():
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    assert fit_calibrator("temperature", logits, torch.tensor([0, 1])).state == fit_temperature(
        logits.double(), torch.tensor([0, 1])
    )
    assert fit_calibrator("temperature", logits, torch.tensor([0, 1])).state.at_bound
    assert fit_calibrator("temperature", logits, torch.tensor([0, 1])).state.temperature < 0.1
    assert fit_calibrator("temperature", logits, torch.tensor([1, 0])).state.temperature == pytest.approx(400)


def test_temperature_stays_one_where_it_changes_nothing():
    assert fitted_by_hand("temperature", [[1.0, 1.0]] * 4, [0, 1, 1, 1]).state.temperature == 1
    assert fitted_by_hand("temperature", [[900.0, 0.0], [0.0, 900.0]], [0, 1]).state.temperature == 1


def test_vector_ends_where_its_objective_is_flat():
    logits, labels = sample()
    state = fit_calibrator("vector", logits, labels, ridge=3.0).state

    def objective(factors, offsets):
        moved = (factors - 1).square().sum() + offsets.square().sum()
        return nll(zero_sum(logits) * factors + offsets, labels) + 3.0 / 2 / len(labels) * moved

    assert float(slopes_of(objective, state.factors, state.offsets).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["matrix", "dirichlet"])
def test_affine_maps_end_where_their_objective_is_flat(name):
    logits, labels = sample()
    state = fit_calibrator(name, logits, labels, off_diagonal=0.7, ridge=3.0).state
    inputs = zero_sum(logits) if name == "matrix" else torch.log_softmax(logits, dim=1)

    def objective(weights, offsets):
        diagonal = weights.diagonal()
        off_diagonal = (weights.square().sum() - diagonal.square().sum()) / 6
        penalty = 0.7 * (off_diagonal + offsets.square().mean())
        return nll(inputs @ weights.T + offsets, labels) + penalty + 3 / 800 * (diagonal - 1).square().sum()

    assert float(slopes_of(objective, state.weights, state.offsets).abs().max()) < 1e-6


def test_matrix_with_hardly_a_penalty_is_multinomial_logistic_regression():
    logits, labels = sample()
    peer = LogisticRegression(C=np.inf, tol=1e-9, max_iter=2000).fit(zero_sum(logits).numpy(), labels.numpy())
    expected = peer.predict_log_proba(zero_sum(logits).numpy())
    fitted = fit_calibrator("matrix", logits, labels, off_diagonal=1e-7, ridge=1e-5)
    np.testing.assert_allclose(calibrate(fitted, logits), expected, atol=2e-3)


def test_dirichlet_counts_the_least_probabilities_as_the_epsilon():
    fitted = fit_calibrator("dirichlet", *sample())
    logits = torch.tensor([[0.0, -40.0, -1.0], [0.0, -400.0, -1.0]])
    one, other = calibrate(fitted, logits)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["matrix", "dirichlet"])
def test_automatic_amount_is_as_good_as_the_best_on_other_samples(name):
    logits, labels = sample(n=3000)
    others, truth = sample(n=20_000, seed=1)
    losses = {
        amount: float(nll(calibrate(fit_calibrator(name, logits, labels, off_diagonal=amount), others), truth))
        for amount in (100.0, 1.0, 0.001)
    }
    automatic = float(nll(calibrate(fit_calibrator(name, logits, labels), others), truth))
    assert automatic < min(losses.values()) + 2e-3 < max(losses.values())


@pytest.mark.parametrize("c", [2, 3])
def test_isotonic_agrees_with_scikit_learn(c):
    logits, labels = sample(c=c)
    logits = logits.round()  # many ties
    others, _ = sample(c=c, seed=1)
    columns = []
    for k in range(c):
        probs, unseen = (torch.softmax(values, dim=1)[:, k].numpy().round(12) for values in (logits, others))
        columns.append(IsotonicRegression(out_of_bounds="clip").fit(probs, labels == k).predict(unseen))
    expected = np.maximum(np.stack(columns, axis=1), 1 / (400 * c))
    expected /= expected.sum(axis=1, keepdims=True)
    fitted = fit_calibrator("isotonic", logits, labels)
    np.testing.assert_allclose(calibrate(fitted, others).exp(), expected, atol=1e-12)


def test_isotonic_by_hand():
    logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]).double().log()
    fitted = fit_calibrator("isotonic", logits, torch.tensor([0, 1, 0, 1]))
    # The second and third violate the order and are pooled; the last is 0 of 1, raised to 1 / (4 * 2).
    expected = torch.tensor([[1, 1 / 8], [0.5, 0.5], [0.5, 0.5], [1 / 8, 1]]).double()
    expected /= expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(calibrate(fitted, logits).exp(), expected, atol=1e-12, rtol=0)


def test_a_probability_on_an_edge_is_in_the_histogram_bin_that_ends_there():
    on, below = [4 / 15, 7 / 15, 10 / 15], [3.9 / 15, 6.9 / 15, 9.9 / 15]
    logits = torch.tensor([[1 - p, p] for p in on + below], dtype=torch.float64).log()
    fitted = fit_calibrator("histogram", logits, torch.tensor([0, 0, 0, 1, 1, 1]), bins=15, binning="equal-width")
    assert fitted.state.frequencies[1, [3, 6, 9]].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("binning", ["equal-width", "equal-mass"])
def test_histogram_agrees_with_loops(binning):
    logits, labels = sample(n=60)
    probs = torch.softmax(logits, dim=1).numpy().round(12)
    table = np.zeros_like(probs)
    for k in range(3):
        inner = [1 / 3, 2 / 3] if binning == "equal-width" else np.quantile(probs[:, k], [1 / 3, 2 / 3]).tolist()
        edges = [0.0, *inner, 1.0]
        for low, high in itertools.pairwise(edges):
            rows = [i for i, p in enumerate(probs[:, k]) if low < p <= high or (p == 0 and low == 0)]
            hits = sum(int(labels[i]) == k for i in rows)
            table[rows, k] = max(hits / len(rows), 1 / 180) if rows else 0
    expected = table / table.sum(axis=1, keepdims=True)
    fitted = fit_calibrator("histogram", logits, labels, bins=3, binning=binning)
    np.testing.assert_allclose(calibrate(fitted, logits).exp(), expected, atol=1e-12)


def test_a_bin_without_samples_gives_its_middle():
    fitted = fitted_by_hand("histogram", [[0.0, 0.0]] * 4, [0, 1, 1, 1], bins=4)
    torch.testing.assert_close(fitted.state.frequencies[0], torch.tensor([1 / 8, 1 / 4, 5 / 8, 7 / 8]).double())


def beta_objective(parameters, probs, hits, ridge):
    a, b, c = parameters
    values = a * np.log(probs) - b * np.log1p(-probs) + c
    return float(np.logaddexp(0, values).sum() - values @ hits + ridge / 2 * ((a - 1) ** 2 + (b - 1) ** 2 + c**2))


@pytest.mark.parametrize("flip", [False, True])
def test_beta_agrees_with_a_bounded_search(flip):
    logits, labels = sample()
    labels = (labels + 1) % 3 if flip else labels  # then a and b want to be negative
    state = fit_calibrator("beta", logits, labels, ridge=0.5).state
    for k in range(3):
        probs, hits = torch.softmax(logits, dim=1)[:, k].numpy(), (labels == k).double().numpy()
        found = minimize(
            beta_objective,
            [1, 1, 0],
            (probs, hits, 0.5),
            method="L-BFGS-B",
            bounds=[(0, None), (0, None), (None, None)],
        )
        assert beta_objective(state.parameters[k].numpy(), probs, hits, 0.5) <= found.fun * (1 + 1e-9)
        np.testing.assert_allclose(state.parameters[k], found.x, atol=2e-2)
    assert bool((state.parameters[:, :2] >= 0).all())
    assert bool((state.parameters[:, :2] == 0).any()) is flip


def with_difficulty(n=4000, seed=0):
    """Hard samples are overconfident by 4, easy ones by 1, the inverse linear in between."""
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(n, generator=generator, dtype=torch.float64)
    logits = torch.randn(n, 3, generator=generator, dtype=torch.float64) * 5
    true = logits * (1 - 0.75 * ranks)[:, None]
    labels = torch.multinomial(torch.softmax(true, dim=1), 1, generator=generator)[:, 0]
    return logits, labels, torch.exp(3 * ranks)


def test_difficulty_temperature_finds_the_temperatures():
    logits, labels, difficulty = with_difficulty(n=20_000)
    fitted = fit_calibrator("difficulty-temperature", logits, labels, difficulty=difficulty)
    assert (1 / fitted.state.inverses).tolist() == pytest.approx([1, 4], rel=0.1)
    logits, labels, difficulty = with_difficulty(seed=1)
    one = fit_calibrator("temperature", logits, labels)
    better = float(nll(calibrate(fitted, logits, difficulty=difficulty), labels))
    assert better < one.nll_after - 0.02


@pytest.mark.parametrize("knots", [2, 5])
def test_difficulty_temperature_ends_where_its_objective_is_flat(knots):
    logits, labels, difficulty = with_difficulty(n=900)
    state = fit_calibrator("difficulty-temperature", logits, labels, difficulty=difficulty, knots=knots).state
    ranks = difficulty.argsort().argsort().double() / 899

    def objective(inverses):
        places = ranks * (knots - 1)
        low = places.floor().clamp(max=knots - 2).long()
        part = places - low
        return nll(logits * ((1 - part) * inverses[low] + part * inverses[low + 1])[:, None], labels)

    assert float(slopes_of(objective, state.inverses).abs().max()) < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_difficulty_temperature_is_never_worse_than_one_temperature(seed):
    logits, labels, difficulty = with_difficulty(n=[1, 3, 30, 300][seed], seed=seed)
    one = fit_calibrator("temperature", logits, labels)
    both = fit_calibrator("difficulty-temperature", logits, labels, difficulty=difficulty.round())
    assert both.nll_after <= one.nll_after * (1 + 1e-12)


def test_one_difficulty_for_all_is_one_temperature():
    logits, labels = sample()
    one = fit_calibrator("temperature", logits, labels)
    same = fit_calibrator("difficulty-temperature", logits, labels, difficulty=torch.ones(400))
    torch.testing.assert_close(
        calibrate(same, logits, difficulty=torch.full((400,), 7.0)), calibrate(one, logits), rtol=1e-6, atol=1e-6
    )


def test_many_difficulties_are_thinned_and_beyond_the_ends_the_ends_count():
    logits, labels, difficulty = with_difficulty()
    fitted = fit_calibrator("difficulty-temperature", logits, labels, difficulty=difficulty)
    assert len(fitted.state.difficulties) == 1001
    assert fitted.state.ranks[[0, -1]].tolist() == [0, 1]
    hardest = calibrate(fitted, logits, difficulty=torch.full((4000,), 1e9))
    torch.testing.assert_close(hardest, torch.log_softmax(logits * fitted.state.inverses[-1], dim=1))


def test_shared_ids_are_refused():
    check_disjoint(["a", "b"], ["c"])
    check_disjoint([], [])
    message = r"`calibration` must share no sample with the test split; got 4 of 5 in both: first 'a', 'b', 'c'\."
    with pytest.raises(IdMismatchError, match=message):
        check_disjoint(np.array(list("edcba"), dtype=object), list("abcdx"))
