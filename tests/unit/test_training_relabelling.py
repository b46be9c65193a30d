"""Samples whose labels are not believed: they learn the nearest class, or nothing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from diffident.data.dataset import Dataset
from diffident.errors import InputError, ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.dynamics import read_dynamics
from diffident.training import train

OPTIONS = {"model": "mlp", "loss": "difficulty-aware", "epochs": 3, "batch_size": 16, "width": 16, "device": "cpu"}
POINTS, TRUE = make_blobs(90, n_features=4, centers=3, random_state=3)
POINTS, TRUE = POINTS.astype(np.float32), TRUE.astype(np.int64)
WRONG = np.arange(90) % 5 == 0
GIVEN = np.where(WRONG, (TRUE + 1) % 3, TRUE)
IDS = np.array([f"s{row}" for row in range(90)], dtype=object)


def dataset(labels=GIVEN):
    return Dataset("blobs", "vector", IDS, labels, POINTS.__getitem__, "f")


def table(labels=GIVEN):
    """All are as hard; the nearest class is the true one."""
    level = np.zeros(90)
    return DifficultyTable(IDS, labels, level, level, TRUE, level, distrust=np.where(labels == TRUE, 0.0, 0.9))


def settings(**changes):
    return load_settings(**{**OPTIONS, **changes})


def weights_after(out, labels=GIVEN, **changes):
    train(dataset(labels), settings(**changes), out=out, difficulty=table(labels))
    return (out / "model.safetensors").read_bytes()


def test_the_nearest_class_is_learnt_as_if_it_had_been_the_label(tmp_path):
    relabelled = weights_after(tmp_path / "relabelled", relabel=True)
    assert relabelled == weights_after(tmp_path / "true", labels=TRUE)
    assert relabelled != weights_after(tmp_path / "left-out", relabel=False)
    assert relabelled != weights_after(tmp_path / "kept", relabel=True, distrust=False)


def test_features_leave_samples_out_unless_told_and_other_models_relabel(tmp_path):
    assert weights_after(tmp_path / "default") == weights_after(tmp_path / "left-out", relabel=False)
    assert load_settings(model="ngrams", loss="difficulty-aware").relabel
    assert not load_settings(model="ngrams", loss="difficulty-aware", relabel=False).relabel


def test_training_dynamics_are_those_of_the_given_labels(tmp_path):
    for name, relabel in (("relabelled", True), ("left-out", False)):
        weights_after(tmp_path / name, relabel=relabel, dynamics=True, learning_rate=1e-12, warmup=0.0, epochs=1)
    one, other = (read_dynamics(tmp_path / name) for name in ("relabelled", "left-out"))
    np.testing.assert_array_equal(one.labels, GIVEN)
    np.testing.assert_allclose(one.label_probs, other.label_probs, atol=1e-6)


def test_a_run_is_not_resumed_with_other_labels_to_learn(tmp_path):
    train(dataset(), settings(relabel=True), out=tmp_path / "run", difficulty=table())
    other = replace(table(), nearest_labels=(TRUE + 2) % 3)
    with pytest.raises(ResumeError, match="data weights was"):
        train(dataset(), settings(relabel=True), out=tmp_path / "run", difficulty=other, resume=True)


def test_a_nearest_class_that_the_data_do_not_have_is_refused(tmp_path):
    other = replace(table(), nearest_labels=np.where(np.arange(90) == 5, 7, TRUE))
    message = r"`difficulty` must name classes of blobs, in \[0, 3\); its nearest class of 's5' is 7\. Score it on this"
    with pytest.raises(InputError, match=message):
        train(dataset(), settings(relabel=True), out=tmp_path / "run", difficulty=other)
    assert not (tmp_path / "run").exists()
    train(dataset(), settings(relabel=False), out=tmp_path / "run", difficulty=other)
