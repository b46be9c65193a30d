"""The recipes: which samples, labels and features a run gets."""

from pathlib import Path

import numpy as np
import pytest

from diffident import open_dataset
from diffident.errors import InputError
from experiments.materials import Materials, Place, changed, open_split
from experiments.reading import read_recipe
from experiments.recipe import DataChange

SIZES = """
[data]
train = "digits:train[:40]"
validation = "digits:validation"
test = "digits:test"
[difficulty]
encoder = "glyphs"
image_size = 16
[methods.cross-entropy]
loss = "cross-entropy"
[methods.difficulty-aware]
loss = "difficulty-aware"
[methods.small]
loss = "difficulty-aware"
difficulty = { image_size = 8 }
[methods.other]
loss = "difficulty-aware"
difficulty = { encoder = "identity" }
[methods.control]
like = "small"
temperature = 0.5
difficulty = { shuffle = true }
data = { limit = 30 }
[sweeps.noise]
vary = "data.label_noise"
values = [0.2]
methods = ["control", "small"]
[training]
model = "mlp"
"""


def test_some_rows_and_the_others():
    whole = open_dataset("digits:test")
    some = open_split(Path(), "digits:test[::7]")
    rest = open_split(Path(), "digits:test[!::7]")
    assert list(some.ids) == list(whole.ids[::7])
    assert sorted([*some.ids, *rest.ids]) == sorted(whole.ids)
    assert list(open_split(Path(), "digits:test[-3:]").ids) == list(whole.ids[-3:])
    with pytest.raises(InputError, match="takes none of 600"):
        open_split(Path(), "digits:test[600:]")


def test_labels_are_flipped_to_another_class_by_the_seed():
    whole = open_dataset("digits:train")
    noisy = changed(whole, DataChange(label_noise=0.3), seed=1)
    assert (noisy.labels != whole.labels).sum() == 300
    assert (noisy.labels == changed(whole, DataChange(label_noise=0.3), seed=1).labels).all()
    assert (noisy.labels != changed(whole, DataChange(label_noise=0.3), seed=2).labels).any()
    assert changed(whole, DataChange(), seed=1) is whole


def test_a_long_tail_has_the_ratio_that_was_asked_for():
    whole = open_dataset("digits:train")
    tailed = changed(whole, DataChange(imbalance=10.0), seed=0)
    sizes, largest = np.bincount(tailed.labels), np.bincount(whole.labels).max()
    assert sizes[0] == np.bincount(whole.labels)[0]
    assert sizes[9] == round(largest / 10)
    assert sizes[3] == round(largest * 10 ** (-3 / 9))
    assert len(set(tailed.ids)) == len(tailed)


def test_limit_comes_before_noise():
    fewer = changed(open_dataset("digits:train"), DataChange(limit=100, label_noise=0.1), seed=0)
    plain = open_dataset("digits:train", limit=100)
    assert list(fewer.ids) == list(plain.ids)
    assert (fewer.labels != plain.labels).sum() == 10


def test_features_are_of_the_image_size_that_the_method_says(tmp_path, monkeypatch):
    (tmp_path / "sizes.toml").write_text(SIZES)
    recipe = read_recipe(tmp_path / "sizes.toml")
    materials = Materials(Place(recipe, tmp_path, tmp_path))
    monkeypatch.setattr(Materials, "_extracted", lambda self, encoder, size, split, dataset: (encoder, size, split))
    found = [
        materials.features(recipe.methods[name].difficulty, materials.raw_train)
        for name in ("small", recipe.ours, "other")
    ]
    assert found == [("glyphs", 8, "train"), ("glyphs", 16, "train"), ("identity", None, "train")]


def test_a_point_of_a_sweep_is_its_method_but_for_what_varies(tmp_path):
    (tmp_path / "sizes.toml").write_text(SIZES)
    methods = read_recipe(tmp_path / "sizes.toml").methods
    point, control = methods["control@noise=0.2"], methods["control"]
    assert (point.like, point.options) == ("small", {"temperature": 0.5})
    assert point.difficulty == control.difficulty
    assert point.difficulty.shuffle
    assert point.data == DataChange(limit=30, label_noise=0.2)
    assert point.point is not None
    assert point.point.method == "control"
    assert (methods["small@noise=0.2"].like, methods["small@noise=0.2"].options) == ("small", {})
    assert methods["small@noise=0.2"].difficulty.image_size == 8
