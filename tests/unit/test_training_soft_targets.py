"""Soft targets: what a sample is to be learnt as, beside its label, and what training makes of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import make_blobs

from diffident.data.dataset import Dataset
from diffident.difficulties import score_features
from diffident.difficulties.targets import training_targets
from diffident.errors import InputError, ResumeError
from diffident.losses import make_loss
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.training import predict, train
from diffident.training.doubt import bonus_of_epoch, next_doubt
from diffident.training.loop import _mixes

COUNT, CLASSES = 90, 3
POINTS, LABELS = make_blobs(COUNT, n_features=4, centers=CLASSES, random_state=3)
POINTS, LABELS = POINTS.astype(np.float32), LABELS.astype(np.int64)
IDS = np.array([f"s{row}" for row in range(COUNT)], dtype=object)
HARD = np.random.default_rng(0).permutation(COUNT) / (COUNT - 1)
PROBS = np.random.default_rng(1).dirichlet(np.ones(CLASSES), COUNT).astype(np.float32)
EVERY = np.tile(np.arange(CLASSES), (COUNT, 1))


def dataset(labels=LABELS):
    return Dataset("blobs", "vector", IDS, labels, POINTS.__getitem__, "f")


def table(candidates=EVERY, probs=PROBS, distrust=None, likely=None):
    columns = IDS, LABELS, HARD, HARD, LABELS, HARD, {"method": "posterior"}, None
    return DifficultyTable(*columns, distrust, likely, candidates, probs)


def settings(**changes):
    options = {"model": "mlp", "loss": "difficulty-aware", "epochs": 4, "batch_size": 16, "width": 16, "device": "cpu"}
    return load_settings(**{**options, **changes})


def weights_after(out, difficulty, **changes):
    train(dataset(), settings(**changes), out=out, difficulty=difficulty)
    return (out / "model.safetensors").read_bytes()


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_targets_are_the_label_and_the_probabilities_in_their_shares():
    soft = training_targets(table(), soft_targets=0.25).soft
    assert soft is not None
    expected = 0.75 * np.eye(CLASSES)[LABELS] + 0.25 * PROBS
    assert np.allclose(soft.over(CLASSES).numpy(), expected, atol=1e-6)
    rows = torch.tensor([4, 0, 7])
    assert np.allclose(soft.rows(rows).over(CLASSES + 2).numpy()[:, :CLASSES], expected[rows], atol=1e-6)
    assert training_targets(table()).soft is None


def test_probabilities_of_a_class_that_is_named_twice_add_up():
    twice = table(np.stack([LABELS, LABELS, (LABELS + 1) % CLASSES], axis=1), np.tile([0.25, 0.25, 0.5], (COUNT, 1)))
    soft = training_targets(twice, soft_targets=1.0).soft
    assert soft is not None
    expected = 0.5 * np.eye(CLASSES)[LABELS] + 0.5 * np.eye(CLASSES)[(LABELS + 1) % CLASSES]
    assert np.allclose(soft.over(CLASSES).numpy(), expected)


def test_the_share_of_the_label_is_that_of_the_label_which_is_learnt():
    likely, distrust = LABELS.copy(), np.zeros(COUNT)
    likely[5], distrust[5] = (LABELS[5] + 1) % CLASSES, 0.9
    targets = training_targets(table(distrust=distrust, likely=likely), relabel=True, soft_targets=0.5)
    assert targets.soft is not None
    assert np.allclose(targets.soft.over(CLASSES)[5], 0.5 * np.eye(CLASSES)[likely[5]] + 0.5 * PROBS[5], atol=1e-6)


@pytest.mark.parametrize(
    ("difficulty", "share", "told"),
    [
        (replace(table(), candidates=None), 0.5, "probabilities of the classes for soft_targets=0.5; got a table of"),
        (table(), 1.5, "`soft_targets` must be in [0, 1]; got 1.5."),
    ],
)
def test_a_table_without_probabilities_or_a_share_out_of_range_is_refused(difficulty, share, told):
    with pytest.raises(InputError) as caught:
        training_targets(difficulty, soft_targets=share)
    assert told in str(caught.value)


def test_posterior_says_how_probable_the_classes_are_without_looking_at_the_sample_itself():
    blocks = lambda: iter([torch.from_numpy(POINTS)])  # noqa: E731
    scored = score_features(blocks, IDS, LABELS, method="posterior", shrinkage=0.5)
    assert scored.candidates is not None
    assert scored.candidate_probs is not None
    assert (scored.candidates[:, 0] == LABELS).all()
    assert np.allclose(scored.candidate_probs.sum(axis=1), 1, atol=1e-6)
    row, kept = 11, np.arange(COUNT) != 11
    without = score_features(
        lambda: iter([torch.from_numpy(POINTS[kept])]), IDS[kept], LABELS[kept], method="posterior", shrinkage=0.5
    )
    temperature = scored.metadata["noise_temperature"]
    assert without.metadata["noise_temperature"] == temperature
    means = np.stack([POINTS[kept & (label == LABELS)].mean(axis=0) for label in range(CLASSES)])
    centred = (POINTS - means[LABELS])[kept]
    covariance = centred.T @ centred / kept.sum()
    shrunk = 0.5 * covariance + 0.5 * np.eye(4) * np.trace(covariance) / 4
    offset = POINTS[row] - means
    scores = -np.einsum("kd,de,ke->k", offset, np.linalg.inv(shrunk), offset) / 2
    scores = scores + np.log(np.bincount(LABELS[kept], minlength=CLASSES) / COUNT)
    expected = np.exp(scores / temperature - np.logaddexp.reduce(scores / temperature))
    found = np.zeros(CLASSES)
    found[scored.candidates[row]] = scored.candidate_probs[row]
    assert np.allclose(found, expected, atol=0.02)


def test_what_is_learnt_are_the_probabilities_where_these_are_all_of_it(tmp_path):
    others = (LABELS + 1) % CLASSES
    changes = {"soft_targets": 1.0, "doubt": 0.0, "epochs": 30, "learning_rate": 0.02}
    train(dataset(), settings(**changes), out=tmp_path / "r", difficulty=table(probs=np.eye(CLASSES)[others]))
    predicted = predict(tmp_path / "r", dataset()).logits.argmax(dim=1).numpy()
    assert (predicted == others).mean() > 0.95


def test_the_first_loss_is_that_of_the_targets_and_the_first_accuracy_that_of_the_labels(tmp_path):
    changes = {"soft_targets": 0.4, "epochs": 1, "batch_size": 128, "learning_rate": 1e-12, "dropout": 0.0}
    run = train(dataset(), settings(**changes), out=tmp_path / "r", difficulty=table())
    line = lines_of(tmp_path / "r")[0]
    targets = training_targets(table(), temperature=run.settings.temperature or 0.0, soft_targets=0.4)
    assert targets.soft is not None
    logits = predict(tmp_path / "r", dataset()).logits
    criterion = make_loss("difficulty-aware", others=run.settings.others)
    expected = float(criterion(logits, targets.soft.over(CLASSES), targets.weights))
    assert line["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert line["train_accuracy"] == pytest.approx((logits.argmax(dim=1).numpy() == LABELS).mean())


def test_soft_targets_are_part_of_the_run(tmp_path):
    before = weights_after(tmp_path / "a", table(), soft_targets=0.5)
    assert before == weights_after(tmp_path / "b", table(), soft_targets=0.5)
    assert before != weights_after(tmp_path / "c", table(), soft_targets=0.0)
    assert before != weights_after(tmp_path / "d", table(probs=PROBS[::-1].copy()), soft_targets=0.5)
    with pytest.raises(ResumeError):
        train(
            dataset(),
            settings(soft_targets=0.5),
            out=tmp_path / "a",
            difficulty=table(probs=PROBS[::-1].copy()),
            resume=True,
        )
    # Without soft targets nothing is read of the probabilities.
    assert weights_after(tmp_path / "e", table(None, None)) == weights_after(tmp_path / "f", table())


def test_mixtures_have_the_targets_of_both_samples(tmp_path):
    plain = weights_after(tmp_path / "a", table(), soft_targets=0.5)
    mixed = weights_after(tmp_path / "b", table(), soft_targets=0.5, mixup=1.0)
    assert mixed not in (plain, weights_after(tmp_path / "c", table(), mixup=1.0))


def test_samples_are_mixed_until_the_epoch_that_is_set(tmp_path):
    plain = weights_after(tmp_path / "a", table())
    assert weights_after(tmp_path / "b", table(), mixup=1.0, mixup_until=0.0) == plain
    for_all = weights_after(tmp_path / "c", table(), mixup=1.0)
    half = weights_after(tmp_path / "d", table(), mixup=1.0, mixup_until=0.5)
    assert len({plain, for_all, half}) == 3
    of_all, of_half = ([line["train_loss"] for line in lines_of(tmp_path / name)] for name in "cd")
    assert of_all[:2] == of_half[:2]
    assert of_all[2] != of_half[2]


@pytest.mark.parametrize(("until", "epochs", "mixed"), [(0.28, 25, 7), (0.8, 30, 24), (1.0, 3, 3), (0.0, 3, 0)])
def test_the_share_of_the_epochs_is_counted_without_rounding_errors(until, epochs, mixed):
    found = settings(mixup=1.0, mixup_until=until, epochs=epochs)
    assert [_mixes(found, epoch) for epoch in range(epochs)] == [True] * mixed + [False] * (epochs - mixed)
    assert not _mixes(settings(), 0)


def test_patience_counts_from_the_first_epoch_that_shows_samples_as_they_are(tmp_path):
    changes = {"mixup": 1.0, "mixup_until": 0.5, "epochs": 12, "patience": 1, "learning_rate": 0.5}
    held_out = Dataset("others", "vector", IDS + "v", LABELS, POINTS.__getitem__, "g")
    for name, until in (("a", 0.5), ("b", 1.0)):
        out = tmp_path / name
        train(
            dataset(), settings(**{**changes, "mixup_until": until}), out=out, difficulty=table(), validation=held_out
        )
    assert len(lines_of(tmp_path / "b")) < 7 <= len(lines_of(tmp_path / "a"))


def test_classes_beyond_the_number_that_is_asked_for_are_refused():
    soft = training_targets(table(), soft_targets=0.5).soft
    assert soft is not None
    with pytest.raises(InputError, match="got 2, and a probability of class 2"):
        soft.over(2)
    with pytest.raises(InputError, match="`candidates` must be at least 0; got -1"):
        training_targets(table(EVERY - 1), soft_targets=0.5)


def test_classes_that_the_data_lack_are_refused(tmp_path):
    beyond = table(np.concatenate([EVERY, np.full((COUNT, 1), 7)], axis=1), np.tile([0.2, 0.2, 0.2, 0.4], (COUNT, 1)))
    with pytest.raises(InputError, match="which are 3; got a probability of class 7 for 's0'"):
        train(dataset(), settings(soft_targets=0.5), out=tmp_path / "r", difficulty=beyond)
    assert not (tmp_path / "r").exists()
    never = replace(beyond, candidate_probs=np.concatenate([PROBS, np.zeros((COUNT, 1), np.float32)], axis=1))
    assert weights_after(tmp_path / "a", never, soft_targets=0.5) == weights_after(
        tmp_path / "b", table(), soft_targets=0.5
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"loss": "cross-entropy"},
            "`soft_targets` must be 0 with the loss 'cross-entropy', which is given no difficulty",
        ),
        ({"soft_targets": 1.5}, "`soft_targets` must be at least 0 and at most 1; got 1.5"),
        ({"mixup_until": 0.5}, "`mixup_until` must be 1 without mixup; got 0.5."),
        ({"mixup_until": 2.0}, "`mixup_until` must be at least 0 and at most 1; got 2.0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, told):
    with pytest.raises(InputError) as caught:
        settings(**{"soft_targets": 0.5, **changes})
    assert told in str(caught.value)


def test_learnt_doubt_begins_without_a_bonus():
    cnn = settings(model="cnn-small", soft_targets=0.5, epochs=10)
    assert next_doubt(cnn, [], 10) == 0
    assert next_doubt(settings(soft_targets=0.5, epochs=300), [], 100) == 0
    line = {"doubt": 0.0, "validation_temperature": 0.5, "train_accuracy": 0.5, "validation_accuracy": 0.5}
    assert next_doubt(cnn, [line] * 5, 10) == 0
    assert next_doubt(cnn, [{**line, "validation_temperature": 2.0}] * 5, 10) == pytest.approx(0.6 * np.log(2))
    assert bonus_of_epoch(cnn, 0.019).options["doubt"] == 0
    assert bonus_of_epoch(cnn, 0.02).options["doubt"] == 0.02


def test_images_that_workers_read_learn_the_same_targets(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    photos = Dataset("photos", "image", IDS, LABELS, lambda row: Image.fromarray(pixels[row]), "f")
    weights = []
    for name, share, loading in (("a", 0.5, "memory"), ("b", 0.5, "workers"), ("c", 0.0, "workers")):
        changes = {"model": "cnn-small", "loading": loading, "epochs": 1, "image_size": 8, "width": 4}
        train(photos, settings(soft_targets=share, **changes), out=tmp_path / name, difficulty=table())
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]
