"""What every calibrator promises."""

import dataclasses
import importlib
import json
import math

import numpy as np
import pytest
import torch

from diffident.calibrators import (
    CALIBRATORS,
    calibrate,
    calibrator_from_dict,
    calibrator_to_dict,
    fit_calibrator,
    open_calibrator,
)
from diffident.errors import InputError, ShapeError

every_calibrator = pytest.mark.parametrize("name", CALIBRATORS)
# The others map every class on its own, which can lose likelihood when rows are brought to sum 1.
BY_LIKELIHOOD = ["temperature", "vector", "matrix", "dirichlet", "difficulty-temperature"]


def sample(n=300, c=4, seed=0, sharpness=3.0):
    """Logits that are too sure by the factor `sharpness`, with the labels drawn from what they should be."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 1.5
    labels = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]
    return logits * sharpness, labels


def extra(name, logits):
    """What the calibrator needs beside the logits."""
    needs = CALIBRATORS[name].needs
    return {} if needs is None else {needs: logits.double().sin().sum(dim=1)}


def run(name, logits, labels, **options):
    """The calibrator and the calibrated log-probabilities of the same samples."""
    calibrator = fit_calibrator(name, logits, labels, **extra(name, logits), **options)
    return calibrator, calibrate(calibrator, logits, **extra(name, logits))


def check(log_probs, shape):
    """What holds for any log-probabilities."""
    assert log_probs.dtype == torch.float64
    assert log_probs.shape == shape
    assert bool(log_probs.isfinite().all())
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(shape[0]).double(), rtol=0, atol=1e-12)


@every_calibrator
def test_registry_says_what_the_calibrator_takes(name):
    kind = CALIBRATORS[name]
    method = open_calibrator(name)
    shared = importlib.import_module("diffident.calibrators.affine")
    options = next(value for where in (method, shared) for key, value in vars(where).items() if key.endswith("Options"))
    assert {field.name for field in dataclasses.fields(options)} == set(kind.options)
    state = getattr(method, kind.state)
    assert dataclasses.is_dataclass(state)
    assert kind.summary
    assert "\n" not in kind.summary


@every_calibrator
def test_log_probs_and_frozen_state(name):
    logits, labels = sample()
    calibrator, log_probs = run(name, logits, labels)
    check(log_probs, (300, 4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibrator.state.other = 1
    assert (calibrator.num_samples, calibrator.num_classes) == (300, 4)
    after = -float(log_probs.gather(1, labels[:, None]).mean())
    assert calibrator.nll_after == pytest.approx(after)
    before = -float(torch.log_softmax(logits, dim=1).gather(1, labels[:, None]).mean())
    assert calibrator.nll_before == pytest.approx(before)


@every_calibrator
def test_saved_as_json_and_read_again_it_is_the_same_to_the_last_bit(name):
    logits, labels = sample()
    calibrator, log_probs = run(name, logits, labels)
    text = json.dumps(calibrator_to_dict(calibrator), allow_nan=False)
    again = calibrator_from_dict(json.loads(text))
    assert torch.equal(calibrate(again, logits, **extra(name, logits)), log_probs)
    assert json.dumps(calibrator_to_dict(again)) == text
    described = open_calibrator(name).describe(calibrator.state)
    assert json.loads(json.dumps(described, allow_nan=False)) == described


@every_calibrator
@pytest.mark.parametrize("seed", range(3))
def test_overconfident_logits_get_better_on_other_samples(name, seed):
    calibrator, _ = run(name, *sample(n=3000, seed=seed))
    assert calibrator.nll_after < calibrator.nll_before
    logits, labels = sample(n=3000, seed=seed + 100)
    log_probs = calibrate(calibrator, logits, **extra(name, logits))
    before = -torch.log_softmax(logits, dim=1).gather(1, labels[:, None]).mean()
    assert -log_probs.gather(1, labels[:, None]).mean() < before - 0.2


@pytest.mark.parametrize("name", BY_LIKELIHOOD)
@pytest.mark.parametrize("seed", range(6))
def test_likelihood_never_gets_worse_on_its_own_split(name, seed):
    logits, labels = sample(n=[1, 2, 5, 17, 40, 200][seed], c=seed % 4 + 2, seed=seed, sharpness=[0.1, 1, 9][seed % 3])
    calibrator, _ = run(name, logits, labels)
    assert calibrator.nll_after <= calibrator.nll_before * (1 + 1e-12) + 1e-15


@every_calibrator
def test_order_of_the_rows_does_not_matter(name):
    logits, labels = sample()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    _, log_probs = run(name, logits, labels)
    _, shuffled = run(name, logits[order], labels[order])
    torch.testing.assert_close(shuffled, log_probs[order], rtol=1e-4, atol=1e-5)


@every_calibrator
def test_a_number_added_to_a_row_changes_nothing(name):
    logits, labels = sample()
    generator = torch.Generator().manual_seed(2)
    moved = logits + torch.randint(-64, 64, (len(labels), 1), generator=generator)
    needed = extra(name, logits)
    one, other = (fit_calibrator(name, values, labels, **needed) for values in (logits, moved))
    expected = calibrate(one, logits, **needed)
    torch.testing.assert_close(calibrate(one, moved, **needed), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(calibrate(other, logits, **needed), expected, rtol=1e-3, atol=1e-4)


@every_calibrator
def test_twice_gives_the_same_bytes(name):
    logits, labels = sample()
    one, other = (calibrator_to_dict(run(name, logits, labels)[0]) for _ in range(2))
    assert one == other


@every_calibrator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_logits_agree_with_the_same_numbers_in_float64(name, dtype):
    logits, labels = sample()
    _, narrow = run(name, logits.to(dtype), labels)
    _, wide = run(name, logits.to(dtype).double(), labels)
    torch.testing.assert_close(narrow, wide, rtol=1e-9, atol=1e-9)


HUGE = torch.tensor([[1e300, -1e300, 0.0], [0.0, 1e300, -1e300], [5.0, 1.0, 1e30]], dtype=torch.float64)


@every_calibrator
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        pytest.param([[1.0, 2.0]], [0], id="one sample"),
        pytest.param([[1.0, 2.0]], [1], id="one sample, right"),
        pytest.param([[3.0]] * 4, [0] * 4, id="one class"),
        pytest.param([[1.0, 2.0, 0.5], [0.3, 0.1, 0.2]] * 9, [1] * 18, id="one class present"),
        pytest.param((torch.eye(3) * 4).repeat(9, 1), [0, 1, 2] * 9, id="all right"),
        pytest.param((torch.eye(3) * 4).repeat(9, 1), [1, 2, 0] * 9, id="all wrong"),
        pytest.param([[0.0, 0.0, 0.0]] * 6, [0, 1, 2, 0, 1, 0], id="ties"),
        pytest.param(torch.eye(2).repeat(9, 1) * 2, [0, 1, 1] * 6, id="two classes"),
        pytest.param(HUGE, [0, 1, 2], id="huge, right"),
        pytest.param(HUGE, [1, 2, 0], id="huge, wrong"),
        pytest.param(torch.eye(3) * 1e-9, [0, 1, 1], id="tiny"),
        pytest.param(torch.eye(3).repeat(9, 1) * 900, [0, 1, 2] * 8 + [1, 2, 0], id="sure and sometimes wrong"),
    ],
)
def test_degenerate_samples_have_defined_probabilities(name, logits, labels):
    logits, labels = torch.as_tensor(logits, dtype=torch.float64), torch.tensor(labels)
    calibrator, log_probs = run(name, logits, labels)
    check(log_probs, logits.shape)
    assert math.isfinite(calibrator.nll_after)
    assert not calibrator.nll_after > calibrator.nll_before * (1 + 1e-12) + 1e-15 or name not in BY_LIKELIHOOD
    check(calibrate(calibrator, HUGE[:, : logits.shape[1]], **extra(name, HUGE)), (3, logits.shape[1]))


@every_calibrator
def test_nan_is_named_by_row(name):
    logits, labels = sample()
    calibrator, _ = run(name, logits, labels)
    logits[17, 2] = math.nan
    with pytest.raises(InputError, match=r"`logits` must be finite; got nan at row 17"):
        calibrate(calibrator, logits, **extra(name, logits))
    with pytest.raises(InputError, match=r"`logits` must be finite; got nan at row 17"):
        run(name, logits, labels)


@every_calibrator
@pytest.mark.parametrize("label", [-1, 4])
def test_label_out_of_range_is_named_by_row(name, label):
    logits, labels = sample()
    labels[9] = label
    with pytest.raises(InputError, match=rf"`labels` must be in \[0, 4\); got {label} at row 9"):
        run(name, logits, labels)


@every_calibrator
def test_wrong_widths_and_numbers_of_rows(name):
    logits, labels = sample()
    calibrator, _ = run(name, logits, labels)
    with pytest.raises(ShapeError, match=r"`logits` must have 4 columns, as fitted; got 3"):
        calibrate(calibrator, logits[:, :3], **extra(name, logits))
    with pytest.raises(ShapeError, match="`labels` must have shape"):
        run(name, logits, labels[:-1])


@every_calibrator
def test_unknown_options_are_refused(name):
    known = (*CALIBRATORS[name].options, "nothing")[0]
    message = rf"`{known}s` must be an option of the calibrator '{name}'"
    with pytest.raises(InputError, match=message):
        run(name, *sample(), **{f"{known}s": 1})


def test_unknown_names_name_near_ones():
    with pytest.raises(InputError, match=r"got 'temperatur'\. Did you mean `temperature`"):
        fit_calibrator("temperatur", *sample())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vector", {"ridge": 0.0}, "`ridge` must be a number above 0; got 0.0"),
        ("matrix", {"off_diagonal": "aut"}, "Did you mean `auto`"),
        ("dirichlet", {"off_diagonal": -1}, "`off_diagonal` must be a number above 0; got -1.0"),
        ("histogram", {"bins": 0}, "`bins` must be a whole number, at least 1; got 0"),
        ("histogram", {"binning": "equal-mas"}, "Did you mean `equal-mass`"),
        ("beta", {"ridge": True}, "`ridge` must be a number; got True"),
        ("difficulty-temperature", {"knots": 1}, "at least 2; got 1"),
    ],
)
def test_wrong_values_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        run(name, *sample(), **options)


def test_difficulty_is_asked_for_and_checked():
    logits, labels = sample()
    with pytest.raises(InputError, match=r"`difficulty` must be given for 'difficulty-temperature'; got none"):
        fit_calibrator("difficulty-temperature", logits, labels)
    with pytest.raises(InputError, match=r"`difficulty` must be given for `difficulty-temperature` alone"):
        fit_calibrator("temperature", logits, labels, difficulty=np.zeros(300))
    with pytest.raises(ShapeError, match=r"`difficulty` must be one per row of logits, \[300\]; got \[299\]"):
        fit_calibrator("difficulty-temperature", logits, labels, difficulty=np.zeros(299))
    with pytest.raises(InputError, match=r"`difficulty` must be finite; got inf at row 0"):
        fit_calibrator("difficulty-temperature", logits, labels, difficulty=np.full(300, np.inf))


@pytest.mark.parametrize("change", [{"name": "vector"}, {"state": {}}, {"state": {"temperature": "hot"}}, {"x": 1}])
def test_damaged_values_are_refused(change):
    values = calibrator_to_dict(run("temperature", *sample())[0])
    if "x" in change:
        del values["num_samples"]
    with pytest.raises(InputError, match=r"`calibrator` must hold the state of .*Fit it again\."):
        calibrator_from_dict({**values, **change})


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("temperature", {"temperature": -1.0}),
        ("temperature", {"temperature": float("nan")}),
        ("isotonic", {"starts": [0, 5, 4, 9]}),
        ("isotonic", {"outputs": [0.5]}),
        ("histogram", {"frequencies": [[0.5]]}),
        ("vector", {"offsets": [float("inf"), 0.0, 0.0]}),
        ("vector", {"offsets": -1.0}),
        ("vector", {"factors": [1.0, 10**400, 1.0]}),
        ("matrix", {"weights": [[1.0]]}),
        ("dirichlet", {"offsets": [0.0, 0.0]}),
        ("beta", {"parameters": [[1.0, 1.0, 0.0]]}),
        ("isotonic", {"num_fitted": 0}),
        ("histogram", {"num_fitted": -1}),
        ("temperature", {"at_bound": [[]]}),
    ],
)
def test_states_that_no_fit_gives_are_refused(name, changed):
    values = calibrator_to_dict(run(name, *sample())[0])
    with pytest.raises(InputError, match=rf"must hold the state of '{name}'; .*Fit it again\."):
        calibrator_from_dict({**values, "state": {**values["state"], **changed}})


def test_a_temperature_by_difficulty_that_no_fit_gives_is_refused():
    logits, labels = sample()
    values = calibrator_to_dict(fit_calibrator("difficulty-temperature", logits, labels, difficulty=np.arange(300.0)))
    for changed in ({"inverses": [1.0, 0.0]}, {"ranks": [0.5]}, {"inverses": []}):
        with pytest.raises(InputError, match="must hold the state of 'difficulty-temperature'"):
            calibrator_from_dict({**values, "state": {**values["state"], **changed}})
