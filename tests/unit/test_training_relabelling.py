"""Samples whose labels are not believed: they learn the likely class, or nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import make_blobs
from torch import nn

from diffident.data.dataset import Dataset
from diffident.difficulties.scoring import score_features
from diffident.difficulties.targets import training_targets
from diffident.difficulties.weights import difficulty_weights
from diffident.errors import ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.dynamics import read_dynamics
from diffident.storage.runs import open_run
from diffident.training import train

OPTIONS = {"model": "mlp", "loss": "difficulty-aware", "epochs": 3, "batch_size": 16, "width": 16, "device": "cpu"}
POINTS, TRUE = make_blobs(90, n_features=4, centers=3, random_state=3)
POINTS, TRUE = POINTS.astype(np.float32), TRUE.astype(np.int64)
WRONG = np.arange(90) % 5 == 0
GIVEN = np.where(WRONG, (TRUE + 1) % 3, TRUE)
IDS = np.array([f"s{row}" for row in range(90)], dtype=object)
HARD = np.random.default_rng(0).permutation(90) / 89


def small_net(num_classes):
    return nn.Linear(4, num_classes)


def dataset(labels=GIVEN):
    return Dataset("blobs", "vector", IDS, labels, POINTS.__getitem__, "f")


def table(labels=GIVEN, difficulty=HARD):
    """What was flipped is not believed; the true class is likely."""
    distrust = np.where(labels == TRUE, 0.0, 0.9)
    return DifficultyTable(IDS, labels, difficulty, difficulty, labels, difficulty, {}, None, distrust, TRUE)


def settings(**changes):
    return load_settings(**{**OPTIONS, **changes})


def weights_after(out, labels=GIVEN, difficulty=HARD, **changes):
    train(dataset(labels), settings(**changes), out=out, difficulty=table(labels, difficulty))
    return (out / "model.safetensors").read_bytes()


def test_relabelled_samples_are_as_hard_as_the_hardest_and_the_others_keep_their_weights():
    targets = training_targets(table(), relabel=True)
    np.testing.assert_array_equal(targets.labels, TRUE)
    np.testing.assert_array_equal(targets.changed, WRONG)
    assert (targets.weights[WRONG] == 1).all()
    torch.testing.assert_close(targets.weights[~WRONG], difficulty_weights(HARD[~WRONG]))
    left_out = training_targets(table())
    np.testing.assert_array_equal(left_out.labels, GIVEN)
    assert (left_out.weights[WRONG] == 2).all()
    torch.testing.assert_close(left_out.weights[~WRONG], targets.weights[~WRONG])
    kept = training_targets(table(), distrust=False, relabel=True)
    np.testing.assert_array_equal(kept.labels, GIVEN)
    torch.testing.assert_close(kept.weights, difficulty_weights(HARD))


def test_samples_are_left_out_where_no_other_class_is_likely():
    likely = TRUE.copy()
    likely[0], likely[5] = GIVEN[0], 7  # its own, and one that no sample has
    targets = training_targets(replace(table(), likely_labels=likely), relabel=True)
    assert targets.weights[[0, 5, 10]].tolist() == [2, 2, 1]
    assert targets.labels[[0, 5, 10]].tolist() == [GIVEN[0], GIVEN[5], TRUE[10]]
    unknown = training_targets(replace(table(), likely_labels=None), relabel=True)
    torch.testing.assert_close(unknown.weights, training_targets(table()).weights)


def test_the_likely_class_counts_how_common_classes_are():
    generator = np.random.default_rng(0)
    sizes = (2000, 100, 100)
    true = np.repeat(np.arange(3), sizes)
    centres = generator.normal(size=(3, 8)) * 4
    points = (centres[true] + 3 * generator.normal(size=(len(true), 8))).astype(np.float32)
    flipped = generator.random(len(true)) < 0.3
    given = np.where(flipped, (true + generator.integers(1, 3, len(true))) % 3, true)
    blocks = [torch.from_numpy(points)]
    scored = score_features(lambda: iter(blocks), np.arange(len(true)).astype(str), given, method="posterior")
    targets = training_targets(scored, relabel=True)
    assert targets.changed.sum() > 400
    assert (targets.labels == true)[targets.changed].mean() > 0.85
    assert (scored.nearest_labels == true)[targets.changed].mean() < 0.7


def test_the_likely_class_is_learnt_as_if_it_had_been_the_label(tmp_path):
    level = np.zeros(90)  # all weights are 1, whichever labels are believed
    relabelled = weights_after(tmp_path / "relabelled", difficulty=level, relabel=True)
    assert relabelled == weights_after(tmp_path / "true", difficulty=level, labels=TRUE)
    assert relabelled != weights_after(tmp_path / "left-out", difficulty=level, relabel=False)
    assert relabelled != weights_after(tmp_path / "kept", difficulty=level, distrust=False)
    assert relabelled != weights_after(tmp_path / "hard", relabel=True)


def test_training_accuracy_is_that_of_the_samples_that_are_not_left_out(tmp_path):
    def accuracy(labels, **changes):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        options = {"model": "mlp", "epochs": 40, "learning_rate": 1e-2, "dropout": 0.0, **changes}
        train(dataset(labels), settings(**options), out=out, difficulty=replace(table(labels), distrust=0.9 * WRONG))
        return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["train_accuracy"]

    assert accuracy(GIVEN) == accuracy(TRUE) == 1.0
    assert accuracy(GIVEN, accumulation=2) == 1.0
    assert accuracy(GIVEN, distrust=False) < 0.9
    assert accuracy(GIVEN, mixup=0.1) > 0.9  # of a mixture's larger share


@pytest.mark.parametrize("loss", ["difficulty-aware", "difficulty-smoothing", "difficulty-temperature"])
def test_every_loss_with_difficulty_leaves_samples_out_or_relabels_them(loss, tmp_path):
    left_out, relabelled = (
        weights_after(tmp_path / str(relabel), loss=loss, model="mlp", relabel=relabel) for relabel in (False, True)
    )
    assert left_out == weights_after(tmp_path / "default", loss=loss, model="mlp")
    assert left_out != relabelled


def test_image_networks_from_scratch_relabel_and_others_leave_out():
    for model in ("cnn-small", "resnet18-32px", "resnet34-32px", "resnet50-32px", "wrn-28-10", "densenet-bc"):
        assert settings(model=model).relabel
        assert not settings(model=model, relabel=False).relabel
    for model in ("mlp", "ngrams", "transformers:distilbert-base-uncased", "python:my_models:small_cnn"):
        assert not settings(model=model).relabel
        assert settings(model=model, relabel=True).relabel
    for model in ("timm:resnet18", "torchvision:resnet18"):
        assert not settings(model=model).relabel
        assert settings(model=model, pretrained=False).relabel


@pytest.mark.parametrize("changes", [{"distrust": False}, {"preset": "paper"}, {"loss": "crl"}])
def test_nothing_is_relabelled_where_all_labels_are_believed(changes):
    assert not settings(model="cnn-small", **changes).relabel


def test_images_that_workers_read_learn_the_same_labels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 3), dtype=np.uint8)
    photos = Dataset("photos", "image", IDS, GIVEN, lambda row: Image.fromarray(pixels[row]), "f")
    weights = []
    for loading in ("memory", "workers"):
        changes = {"model": "cnn-small", "relabel": True, "loading": loading, "epochs": 1, "image_size": 8, "width": 4}
        train(photos, settings(**changes), out=tmp_path / loading, difficulty=table())
        weights.append((tmp_path / loading / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_training_dynamics_are_those_of_the_given_labels(tmp_path):
    for name, relabel in (("relabelled", True), ("left-out", False)):
        weights_after(tmp_path / name, relabel=relabel, dynamics=True, learning_rate=1e-12, warmup=0.0, epochs=1)
    one, other = (read_dynamics(tmp_path / name) for name in ("relabelled", "left-out"))
    np.testing.assert_array_equal(one.labels, GIVEN)
    np.testing.assert_allclose(one.label_probs, other.label_probs, atol=1e-6)


def test_a_run_is_not_resumed_with_other_labels_to_learn(tmp_path):
    train(dataset(), settings(relabel=True), out=tmp_path / "run", difficulty=table())
    other = replace(table(), likely_labels=np.where(WRONG, (TRUE + 2) % 3, TRUE))
    with pytest.raises(ResumeError, match="data weights was"):
        train(dataset(), settings(relabel=True), out=tmp_path / "run", difficulty=other, resume=True)


@pytest.mark.parametrize("clean", [True, False])
def test_runs_from_before_there_was_relabelling_left_samples_out_and_go_on_so(clean, tmp_path):
    labels, run = TRUE if clean else GIVEN, tmp_path / "run"
    before = settings(model=f"python:{__name__}:small_net", relabel=False)
    train(dataset(labels), before, out=run, difficulty=table(labels))
    config = run / "config.toml"
    config.write_text(config.read_text().replace("relabel = false\n", ""))
    assert not open_run(run).settings.relabel
    images = tmp_path / "images.toml"  # of a model that relabels now
    images.write_text('model = "cnn-small"\nloss = "difficulty-aware"\n[data]\n')
    for file in (config, images):
        assert not load_settings(file).relabel
    train(dataset(labels), before, out=run, difficulty=table(labels), resume=True)
    now = before.changed(relabel=True)
    if clean:  # nothing is relabelled
        train(dataset(labels), now, out=run, difficulty=table(labels), resume=True)
        return
    with pytest.raises(ResumeError, match="data weights was"):
        train(dataset(labels), now, out=run, difficulty=table(labels), resume=True)
