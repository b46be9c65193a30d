import math

import numpy as np
import pytest
import torch
from tests.unit.test_gaussian import make_data

import diffident
from diffident.difficulties import score_features
from diffident.difficulties.weights import difficulty_weights
from diffident.errors import InputError
from diffident.storage.difficulty_table import read_difficulty_table, write_difficulty_table


def score(values, labels, block: int = 7, **options):
    ids = np.array([f"s{row}" for row in range(len(values))], dtype=object)
    return score_features(lambda: iter(values.split(block)), ids, labels.numpy(), **options)


def test_streamed_scores_are_those_in_memory():
    values, labels = make_data()
    gaussians = diffident.fit_gaussians(values, labels)
    table = score(values, labels)
    np.testing.assert_allclose(table.difficulty, diffident.difficulty(gaussians, values, labels), atol=1e-9)


def test_margin_is_zero_exactly_where_the_label_is_nearest():
    table = score(*make_data())
    assert ((table.margin == 0) == (table.nearest_labels == table.labels)).all()
    assert (table.margin >= 0).all()
    assert (table.margin > 0).any()


def test_a_flipped_label_is_a_suspect():
    values, labels = make_data(n=400)
    values[:, 0] += 50 * labels
    flipped = labels.clone()
    flipped[3] = 0
    table = score(values, flipped, shrinkage=0.0)
    assert table.difficulty.argmax() == 3
    assert table.nearest_labels[3] == 3


def test_metadata_says_what_was_done():
    metadata = score(*make_data(), encoder="mine").metadata
    assert metadata["method"] == "rmd"
    assert metadata["encoder"] == "mine"
    assert metadata["num_samples"] == 120
    assert 0 <= metadata["shrinkage"] <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_narrow_labels_are_those_in_int64(dtype):
    values, labels = make_data()
    ids = np.arange(120).astype(str)
    narrow = score_features(lambda: iter([values]), ids, labels.numpy().astype(dtype))
    assert narrow.labels.dtype == np.int64
    assert (narrow.difficulty == score_features(lambda: iter([values]), ids, labels.numpy()).difficulty).all()


def test_unknown_method_names_near_ones():
    with pytest.raises(InputError, match=r"got 'rdm'\. Did you mean `rmd`\?"):
        score(*make_data(), method="rdm")


def test_table_comes_back_as_it_was_written(tmp_path):
    table = score(*make_data(), label_names=("a", "b", "c", "d"))
    for name in ("one", "two"):
        write_difficulty_table(table, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    back = read_difficulty_table(tmp_path / "one")
    assert back.ids.tolist() == table.ids.tolist()
    np.testing.assert_array_equal(back.difficulty, table.difficulty)
    assert back.metadata == table.metadata
    assert back.label_names == ("a", "b", "c", "d")


def test_weights_of_ranks_by_hand():
    weights = difficulty_weights(torch.tensor([5.0, -1.0, 100.0]), temperature=1.0)
    assert weights.tolist() == pytest.approx([math.exp(-0.5), math.exp(-1.0), 1.0])


def test_tied_difficulties_share_their_weight():
    weights = difficulty_weights(np.array([0.0, 3.0, 3.0, 9.0]), temperature=0.5)
    assert weights[1] == weights[2] == pytest.approx(math.exp((0.5 - 1) / 0.5))


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        ("minmax", [math.exp(-1 / 0.3), math.exp(-0.5 / 0.3), 1.0]),
        ("standard", [math.exp(-6 / math.sqrt(6) / 0.3), math.exp(-3 / math.sqrt(6) / 0.3), 1.0]),
        ("none", [math.exp(-4 / 0.3), math.exp(-2 / 0.3), 1.0]),
    ],
)
def test_other_normalisers_by_hand(normalizer, expected):
    weights = difficulty_weights(torch.tensor([1.0, 3.0, 5.0]), normalizer, 0.3)
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("normalizer", ["rank", "minmax", "standard", "none"])
def test_weights_stay_in_range(normalizer):
    extreme = difficulty_weights(torch.tensor([-1e30, 0.0, 1e30]), normalizer, temperature=0.01)
    assert (extreme > 0).all()
    assert extreme.max() == 1
    assert difficulty_weights(torch.ones(3), normalizer).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.tensor([0.0, float("nan")]),), "`difficulty` must be finite; got nan at row 1"),
        ((torch.ones(2), "rank", 0.0), "`temperature` must be above 0; got 0.0"),
        ((torch.ones(2), "ranks"), "Did you mean `rank`"),
        ((torch.ones(0),), "n at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        difficulty_weights(*arguments)


def test_ids_and_labels_are_taken_as_they_come_or_refused():
    values, labels = make_data(dtype=torch.float32)
    expected = score_features(lambda: [values], np.arange(120).astype(str).astype(object), labels.numpy())
    for ids in (np.arange(120), range(120), list(map(str, range(120)))):
        table = score_features(lambda: [values], ids, labels)
        assert table.ids.tolist() == expected.ids.tolist()
        assert (table.difficulty == expected.difficulty).all()
    with pytest.raises(InputError) as caught:
        score_features(lambda: [values], [0, *range(119)], labels)
    assert str(caught.value) == "`ids` must be unique; got '0' at rows 0 and 1. Name each sample once."
