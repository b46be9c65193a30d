"""What every difficulty method promises."""

import dataclasses
import importlib
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.progress import Recorded, rises_to

from diffident.difficulties import METHODS, find_method, open_method, score_features
from diffident.difficulties.training_dynamics import TrainingDynamics, measure_epoch
from diffident.errors import InputError, ShapeError

pytest.importorskip("faiss")
every_method = pytest.mark.parametrize("name", METHODS)
on_features = pytest.mark.parametrize("name", [name for name in METHODS if name != "training-dynamics"])
# An odd sample is far from its class and from all others: without a background that drowns the wrong labels.
finds_errors = pytest.mark.parametrize("name", [name for name in METHODS if name != "squared-distance"])


def blobs(n=120, d=6, k=3, seed=0, distance=6.0, dtype=torch.float64):
    """Separable classes; the means do not depend on the number of samples."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(k, d, generator=generator, dtype=torch.float64) * distance
    labels = torch.arange(n) % k
    return (means[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64)).to(dtype), labels.numpy()


def means_of(values, labels, k):
    rows = [
        values[torch.from_numpy(labels == c)].double().mean(dim=0) if (labels == c).any() else None for c in range(k)
    ]
    return torch.stack([torch.ones(values.shape[1]).double() if row is None else row for row in rows])


def needs(name, values, labels, k, truth=None):
    """What the method must be given: texts near the classes; three epochs of logits that know the true classes."""
    if name == "zero-shot":
        means = means_of(values, labels if truth is None else truth, k)
        return {"label_features": means + 1e-3 * torch.arange(1, k + 1)[:, None]}
    if name == "training-dynamics":
        means = means_of(values, labels if truth is None else truth, k)
        logits = -torch.cdist(values.double(), means)
        if k == 1:
            logits = torch.cat([logits, logits - 1], dim=1)
        seen = [measure_epoch(logits * epoch, torch.from_numpy(labels)) for epoch in (1, 2, 3)]
        fields = ("predictions", "margins", "label_probs", "el2n")
        columns = [torch.stack([getattr(one, field) for one in seen], dim=1).numpy() for field in fields]
        return {"dynamics": TrainingDynamics(np.arange(len(labels)).astype(str).astype(object), labels, *columns)}
    return {}


def run(name, values, labels, k=None, *, block=1000, truth=None, **options):
    """The method's state and scores for these samples."""
    k = int(labels.max()) + 1 if k is None else k
    method = open_method(name)
    options = {**needs(name, values, labels, k, truth), **options}
    state = method.fit(lambda: iter(values.split(block)), labels, k, **options)
    return state, method.score(state, lambda: iter(values.split(block)), labels)


def check(scores, labels):
    """What holds for any scores."""
    kinds = {"difficulty": np.float64, "nearest": np.int64, "margin": np.float64}
    for field, kind in kinds.items():
        column = getattr(scores, field)
        assert column.shape == labels.shape
        assert column.dtype == kind
        assert np.isfinite(column).all()
    assert (scores.margin >= 0).all()
    np.testing.assert_array_equal(scores.margin == 0, scores.nearest == labels)
    assert (scores.nearest >= 0).all()


def assert_same_scores(one, other, tolerance=1e-5):
    """The same scores to rounding."""
    np.testing.assert_allclose(one.difficulty, other.difficulty, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one.margin, other.margin, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(one.nearest, other.nearest)
    if one.distrust is not None:
        np.testing.assert_allclose(one.distrust, other.distrust, atol=tolerance)
        np.testing.assert_array_equal(one.likely, other.likely)


def flip(labels, k, every=10):
    """Every tenth label moved to the next class, and which."""
    wrong = np.arange(len(labels)) % every == 3
    return np.where(wrong, (labels + 1) % k, labels), wrong


@every_method
def test_registry_says_what_the_method_takes(name):
    kind = METHODS[name]
    module = importlib.import_module(f"diffident.difficulties.{kind.module}")
    options = [
        value for key, value in vars(module).items() if key.endswith("Options") and value.__module__ == module.__name__
    ]
    fields = {field.name for field in dataclasses.fields(options[0])}
    assert fields == {*kind.options, *([kind.needs] if kind.needs else [])}
    assert kind.summary
    assert "\n" not in kind.summary


@every_method
def test_shapes_types_and_margin(name):
    values, truth = blobs()
    labels, _ = flip(truth, 3)
    state, scores = run(name, values, labels, truth=truth)
    check(scores, labels)
    assert (scores.margin > 0).any()
    assert dataclasses.is_dataclass(state)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.other = 1


@every_method
def test_metadata_is_plain_json(name):
    state, _ = run(name, *blobs())
    described = open_method(name).describe(state)
    assert json.loads(json.dumps(described, allow_nan=False)) == described


@finds_errors
@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_are_the_hardest_and_have_a_margin(name, seed):
    values, truth = blobs(n=300, k=4, seed=seed)
    labels, wrong = flip(truth, 4)
    _, scores = run(name, values, labels, truth=truth)
    assert roc_auc_score(wrong, scores.difficulty) > 0.95
    assert (scores.nearest[wrong] == truth[wrong]).mean() > 0.9
    assert (scores.nearest[~wrong] == truth[~wrong]).mean() > 0.9


def test_squared_distance_finds_wrong_labels_by_the_margin_of_rmd():
    values, truth = blobs(n=300, k=4)
    labels, wrong = flip(truth, 4)
    _, scores = run("squared-distance", values, labels)
    assert roc_auc_score(wrong, scores.margin) > 0.95
    np.testing.assert_allclose(scores.margin, run("rmd", values, labels)[1].margin, atol=1e-8)


@every_method
def test_order_of_the_rows_does_not_matter(name):
    values, truth = blobs(distance=1.0)
    labels, _ = flip(truth, 3)
    order = np.random.default_rng(0).permutation(len(labels))
    _, scores = run(name, values, labels)
    _, shuffled = run(name, values[order], labels[order])
    moved = {key: value[order] for key, value in vars(scores).items() if value is not None}
    assert_same_scores(dataclasses.replace(scores, **moved), shuffled)


@every_method
def test_size_of_the_blocks_does_not_matter(name):
    values, labels = blobs(n=60, distance=1.0)
    _, whole = run(name, values, labels)
    for block in (1, 7):
        assert_same_scores(whole, run(name, values, labels, block=block)[1])


@every_method
def test_twice_gives_the_same_bytes(name):
    values, labels = blobs(distance=1.0)
    one, other = run(name, values, labels)[1], run(name, values, labels)[1]
    assert one.difficulty.tobytes() == other.difficulty.tobytes()


@on_features
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_features_agree_with_the_same_numbers_in_float64(name, dtype):
    values, labels = blobs(distance=1.0, dtype=dtype)
    _, scores = run(name, values, labels)
    check(scores, labels)
    _, wide = run(name, values.double(), labels)
    np.testing.assert_allclose(scores.difficulty, wide.difficulty, atol=5e-3 * wide.difficulty.std() + 1e-9)


@on_features
def test_a_mean_a_thousand_times_the_spread_costs_little(name):
    values, labels = blobs(n=300, d=5, distance=1.0)
    values = (values + 1000).float()
    _, scores = run(name, values, labels)
    _, exact = run(name, values.double(), labels)
    np.testing.assert_allclose(scores.difficulty, exact.difficulty, atol=2e-3 * exact.difficulty.std())


@every_method
@pytest.mark.parametrize(
    ("values", "labels", "k"),
    [
        pytest.param(torch.tensor([[1.0, 2.0]]), [0], 1, id="one sample"),
        pytest.param(torch.tensor([[1.0, 2.0]]), [1], 3, id="one sample, absent classes"),
        pytest.param(torch.tensor([[0.0], [1.0], [5.0], [6.0]]), [0, 0, 1, 1], 2, id="one feature"),
        pytest.param(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), [0] * 8, 1, id="one class"),
        pytest.param(torch.eye(5), [0, 1, 2, 3, 4], 5, id="singletons"),
        pytest.param(torch.ones(6, 2), [0, 1, 0, 1, 0, 1], 2, id="constant features"),
        pytest.param(torch.zeros(6, 2), [0, 1, 0, 1, 0, 1], 2, id="zeros"),
        pytest.param(torch.eye(3).repeat(40, 1), [0, 1, 2] * 40, 3, id="duplicates"),
        pytest.param(torch.eye(3).repeat(2, 1), [0, 1, 2, 1, 2, 0], 3, id="ties"),
        pytest.param(torch.eye(4)[:, :3].repeat(30, 1), [0, 1, 2, 5] * 30, 7, id="absent classes"),
        pytest.param(torch.eye(2).repeat(50, 1) * 1e4, [0, 1] * 50, 2, id="far apart"),
    ],
)
def test_degenerate_samples_have_defined_scores(name, values, labels, k):
    labels = np.array(labels)
    _, scores = run(name, values, labels, k)
    check(scores, labels)
    if METHODS[name].needs is None:
        assert np.isin(scores.nearest, labels).all()


@on_features
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_named_by_row(name, bad):
    values, labels = blobs()
    method = open_method(name)
    options = needs(name, values, labels, 3)
    state = method.fit(lambda: iter(values.split(7)), labels, 3, **options)
    values[17, 2] = bad
    with pytest.raises(InputError, match=r"`values` must be finite; got NaN or infinity at row 17\."):
        method.score(state, lambda: iter(values.split(7)), labels)
    with pytest.raises(InputError, match=r"`values` must be finite; got NaN or infinity at row 17\."):
        method.score(
            method.fit(lambda: iter(values.split(7)), labels, 3, **options), lambda: iter(values.split(7)), labels
        )


@on_features
@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range_is_named_by_row(name, label):
    values, labels = blobs()
    method = open_method(name)
    state, _ = run(name, values, labels)
    labels = labels.copy()
    labels[9] = label
    with pytest.raises(InputError, match=rf"`labels` must be in \[0, 3\); got {label} at row 9\."):
        method.score(state, lambda: iter(values.split(7)), labels)


@on_features
def test_wrong_numbers_of_rows_and_widths(name):
    values, labels = blobs()
    method = open_method(name)
    state, _ = run(name, values, labels)
    for wrong in (values[:-1], values.repeat(2, 1), values[:0]):
        with pytest.raises(InputError, match=r"`(labels|blocks)` must"):
            method.score(state, lambda wrong=wrong: iter(wrong.split(7)), labels)
    with pytest.raises(ShapeError, match=r"`values` must be .*\[n, 6\]; got .*\(7, 5\)"):
        method.score(state, lambda: iter(values[:, :5].split(7)), labels)
    if name != "zero-shot":
        with pytest.raises(ShapeError, match="got 119 for 120"):
            method.fit(lambda: iter(values.split(7)), labels[:-1], 3)


@on_features
def test_other_samples_are_scored_with_fitted_false(name):
    values, labels = blobs(n=150)
    method = open_method(name)
    fitted, rest = slice(0, 120), slice(120, None)
    options = needs(name, values, labels, 3)
    state = method.fit(lambda: iter([values[fitted]]), labels[fitted], 3, **options)
    scores = method.score(state, lambda: iter([values[rest]]), labels[rest], fitted=False)
    check(scores, labels[rest])
    assert (scores.nearest == labels[rest]).mean() > 0.9
    wrong = method.score(state, lambda: iter([values[rest]]), (labels[rest] + 1) % 3, fitted=False)
    assert (wrong.difficulty > scores.difficulty).mean() > 0.9


@every_method
def test_unknown_options_name_near_ones(name):
    values, labels = blobs()
    known = (*METHODS[name].options, METHODS[name].needs)[0]
    wrong = f"{known}s"
    with pytest.raises(InputError, match=rf"`{wrong}` must be an option of .*'{name}'.*Did you mean `{known}`"):
        open_method(name).fit(lambda: iter([values]), labels, 3, **{wrong: 1})


def test_unknown_methods_name_near_ones():
    with pytest.raises(InputError, match=r"got 'k-means'\. Did you mean `kmeans`"):
        find_method("k-means")


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].needs])
def test_what_a_method_needs_is_asked_for(name):
    values, labels = blobs()
    with pytest.raises(InputError, match=rf"`{METHODS[name].needs}` must be given"):
        open_method(name).fit(lambda: iter([values]), labels, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rmd", {"shrinkage": 2.0}, "`shrinkage` must be"),
        ("squared-distance", {"shrinkage": "much"}, "`shrinkage` must be"),
        ("knn", {"neighbours": 0}, "`neighbours` must be a whole number, at least 1; got 0"),
        ("knn", {"neighbours": True}, "`neighbours` must be a whole number"),
        ("knn", {"temperature": 0}, "`temperature` must be a number above 0; got 0.0"),
        ("knn", {"temperature": "low"}, "`temperature` must be a number; got 'low'"),
        ("knn", {"space": 1}, "`space` must be text; got 1"),
        ("knn", {"space": "cosin"}, "Did you mean `cosine`"),
        ("knn", {"index": "flat"}, "`index` must be a known name"),
        ("kmeans", {"clusters": 2.5}, "`clusters` must be a whole number"),
        ("gmm", {"dimensions": "all"}, "`dimensions` must be a whole number"),
        ("self-confidence", {"folds": 1}, "at least 2; got 1"),
        ("self-confidence", {"ridge": -1.0}, "`ridge` must be a number above 0"),
        ("self-confidence", {"ridge": "aut"}, "Did you mean `auto`"),
    ],
)
def test_wrong_values_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        run(name, *blobs(), **options)


@on_features
def test_progress_counts_the_rows_of_every_pass_and_changes_nothing(name):
    values, labels = blobs()
    read, seen = [], Recorded()

    def blocks():
        read.append(name)
        return iter(values.split(50))

    shared = {"method": name, **needs(name, values, labels, 3)}
    ids = np.arange(120).astype(str).astype(object)
    one, other = (score_features(blocks, ids, labels, progress=progress, **shared) for progress in (None, seen))
    np.testing.assert_array_equal(one.difficulty, other.difficulty)
    np.testing.assert_array_equal(one.margin, other.margin)
    assert all(rises_to(calls, 120) for calls in seen.passes())
    passes = len(read) // 2
    assert len(seen.passes()) > passes if find_method(name).iterates else len(seen.passes()) == passes


@pytest.mark.parametrize("scale", [1e17, 1e-13])
@on_features
def test_the_scale_of_features_does_not_matter(name, scale):
    if name == "self-confidence":
        pytest.skip("other features, other folds")
    values, labels = blobs(distance=3.0)
    given = needs(name, values, labels, 3)
    assert_same_scores(run(name, values * scale, labels, **given)[1], run(name, values, labels, **given)[1])
