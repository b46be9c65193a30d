"""What every detector promises."""

import dataclasses
import importlib
import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.outliers import blobs, fitted, score

from diffident.detectors import DETECTORS, fit_detector, ood_score, open_detector
from diffident.errors import InputError, ShapeError

pytest.importorskip("faiss")
every_detector = pytest.mark.parametrize("name", DETECTORS)
on_logits = pytest.mark.parametrize("name", [name for name in DETECTORS if "logits" in DETECTORS[name].scores])
on_features = pytest.mark.parametrize("name", [name for name in DETECTORS if "features" in DETECTORS[name].scores])


@every_detector
def test_registry_says_what_the_detector_takes(name):
    kind = DETECTORS[name]
    module = importlib.import_module(f"diffident.detectors.{kind.module}")
    options = [
        value for key, value in vars(module).items() if key.endswith("Options") and value.__module__ == module.__name__
    ]
    assert {field.name for field in dataclasses.fields(options[0])} == set(kind.options)
    assert kind.summary
    assert "\n" not in kind.summary


@every_detector
def test_outliers_score_higher(name):
    known, outliers = blobs()
    detector = fitted(name, known)
    new, _ = blobs(seed=1)
    inside, outside = score(detector, new[0], new[1]), score(detector, *outliers)
    assert inside.dtype == outside.dtype == torch.float64
    assert inside.shape == outside.shape == (240,)
    assert bool(inside.isfinite().all())
    assert bool(outside.isfinite().all())
    assert roc_auc_score([0] * 240 + [1] * 240, torch.cat([inside, outside])) > 0.9


@every_detector
def test_frozen_state_and_plain_description(name):
    detector = fitted(name, blobs()[0])
    assert dataclasses.is_dataclass(detector.state)
    with pytest.raises(dataclasses.FrozenInstanceError):
        detector.state.other = 1
    described = open_detector(name).describe(detector.state)
    assert json.loads(json.dumps(described, allow_nan=False)) == described


@every_detector
def test_order_of_the_rows_does_not_matter(name):
    known, outliers = blobs()
    order = torch.randperm(240, generator=torch.Generator().manual_seed(0))
    expected = score(fitted(name, known), *outliers)
    shuffled = fitted(name, tuple(values[order] for values in known))
    torch.testing.assert_close(score(shuffled, *outliers), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        score(shuffled, *(values[order] for values in outliers)), expected[order], rtol=1e-5, atol=1e-5
    )


@every_detector
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_narrow_features_agree_with_the_same_numbers_in_float64(name, dtype):
    known, outliers = blobs(dtype=dtype)
    narrow = score(fitted(name, known), *outliers)
    wide = score(fitted(name, (known[0].double(), *known[1:])), outliers[0].double(), outliers[1])
    torch.testing.assert_close(narrow, wide, rtol=1e-3, atol=1e-3)


@on_logits
def test_order_of_the_classes_does_not_matter(name):
    known, (features, logits) = blobs()
    swapped = score(fitted(name, known), features, logits.flip(1))
    torch.testing.assert_close(swapped, score(fitted(name, known), features, logits), rtol=1e-12, atol=1e-12)


@every_detector
@pytest.mark.parametrize(
    ("features", "logits", "labels"),
    [
        pytest.param([[1.0, 2.0]], [[1.0, 2.0]], [0], id="one sample"),
        pytest.param([[1.0, 2.0], [1.5, 2.0], [4.0, 1.0]], [[2.0]] * 3, [0, 0, 0], id="one class"),
        pytest.param([[1.0, 2.0]] * 6, [[1.0, 1.0]] * 6, [0, 1] * 3, id="ties"),
        pytest.param(torch.zeros(6, 3), torch.ones(6, 2), [0, 1] * 3, id="zeros"),
        pytest.param(
            torch.eye(4).repeat(3, 1), torch.eye(4).repeat(3, 1).double() * 1e300, [0, 1, 2, 3] * 3, id="huge logits"
        ),
        pytest.param(torch.eye(4).repeat(3, 1) * 1e6, torch.eye(4).repeat(3, 1) * 2, [0, 1, 2, 3] * 3, id="far apart"),
        pytest.param(torch.eye(4).repeat(3, 1), torch.eye(4).repeat(3, 1) * 2, [0, 1, 3, 3] * 3, id="absent class"),
    ],
)
def test_degenerate_samples_have_defined_scores(name, features, logits, labels):
    known = (torch.as_tensor(features).float(), torch.as_tensor(logits).double(), torch.tensor(labels))
    scores = score(fitted(name, known), *known[:2])
    assert scores.shape == (len(labels),)
    assert bool(scores.isfinite().all())


@every_detector
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_named_by_row(name, bad):
    known, outliers = blobs()
    detector = fitted(name, known)
    for values in outliers:
        values[17, 2] = bad
    with pytest.raises(InputError, match=r"`(features|logits)` must be finite; got .* at row 17"):
        score(detector, *outliers)


@every_detector
def test_what_is_needed_is_asked_for(name):
    detector = fitted(name, blobs()[0])
    needed = DETECTORS[name].scores[0]
    with pytest.raises(InputError, match=rf"`{needed}` must be given for the detector '{name}'; got none"):
        ood_score(detector)
    for missing in DETECTORS[name].fits_on:
        given = dict(zip(("features", "logits", "labels"), blobs()[0], strict=True))
        with pytest.raises(InputError, match=rf"`{missing}` must be given for the detector '{name}'; got none"):
            fit_detector(name, **{**given, missing: None})


@on_features
def test_features_of_another_width_are_refused(name):
    known, (features, logits) = blobs()
    with pytest.raises(ShapeError, match=r"must be \[n, 8\]; got .*(240, 5|240, 5)"):
        score(fitted(name, known), features[:, :5], logits)


@every_detector
def test_unknown_options_are_refused(name):
    known = (*DETECTORS[name].options, "nothing")[0]
    with pytest.raises(InputError, match=rf"`{known}s` must be an option of the detector '{name}'"):
        fitted(name, blobs()[0], **{f"{known}s": 1})


def test_unknown_names_name_near_ones():
    with pytest.raises(InputError, match=r"got 'max-softmx'\. Did you mean `max-softmax`"):
        fit_detector("max-softmx")


def test_rows_must_match():
    (features, logits, labels), _ = blobs()
    with pytest.raises(ShapeError, match=r"`features` must have a row for every row of logits; got 239 for 240"):
        fit_detector("vim", features=features[1:], logits=logits, labels=labels)
    with pytest.raises(ShapeError, match="`labels` must have shape"):
        fit_detector("mahalanobis", features=features, labels=labels[1:])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("energy", {"temperature": 0.0}, "`temperature` must be a number above 0"),
        ("generalized-entropy", {"largest": 0}, "at least 1; got 0"),
        ("relative-mahalanobis", {"shrinkage": 2.0}, "`shrinkage` must be"),
        ("vim", {"dimensions": 8}, "`dimensions` must be below the 8 of the features; got 8"),
        ("vim", {"weights": np.eye(8)}, "`weights` must be given with `offsets`"),
        ("vim", {"weights": np.eye(7), "offsets": np.zeros(7)}, r"must be \[c, 8\] and \[c\]; got \[7, 7\] and \[7\]"),
        ("knn", {"neighbours": 0}, "at least 1; got 0"),
        ("knn", {"index": "flat"}, "`index` must be a known name"),
    ],
)
def test_wrong_values_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        fitted(name, blobs()[0], **options)


@pytest.mark.parametrize("name", ["energy", "vim"])
def test_log_probabilities_are_refused_where_they_say_nothing(name):
    (features, logits, labels), outliers = blobs()
    normalised = torch.log_softmax(logits, dim=1)
    with pytest.raises(InputError, match=r"`logits` must be unnormalised for '" + name):
        score(fit_detector(name, features=features, logits=normalised, labels=labels), outliers[0], normalised)
