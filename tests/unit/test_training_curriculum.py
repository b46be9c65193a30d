"""Easy samples first: which of them an epoch shows, and what training makes of it."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import make_blobs
from torch import nn

from diffident.data.dataset import Dataset
from diffident.errors import InputError, ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.runs import open_run
from diffident.training import train, train_with_chosen_alpha
from diffident.training.curriculum import Curriculum, epochs_held_back, length_of, share_shown
from diffident.training.doubt import next_doubt

COUNT = 90
POINTS, LABELS = make_blobs(COUNT, n_features=4, centers=3, random_state=3)
POINTS, LABELS = POINTS.astype(np.float32), LABELS.astype(np.int64)
IDS = np.array([f"s{row}" for row in range(COUNT)], dtype=object)
HARD = np.random.default_rng(0).permutation(COUNT) / (COUNT - 1)
SEEN: list[np.ndarray] = []


class Watched(nn.Linear):
    """A linear model that notes every batch it is trained on."""

    def forward(self, inputs):
        if self.training:
            SEEN.append(inputs.detach().numpy().copy())
        return super().forward(inputs)


def watched_net(num_classes):
    return Watched(4, num_classes)


def dataset():
    return Dataset("blobs", "vector", IDS, LABELS, POINTS.__getitem__, "f")


def table(difficulty=HARD, distrust=None):
    likely = None if distrust is None else LABELS
    return DifficultyTable(IDS, LABELS, difficulty, difficulty, LABELS, difficulty, {}, None, distrust, likely)


def settings(**changes):
    options = {"model": "mlp", "loss": "difficulty-aware", "epochs": 4, "batch_size": 16, "width": 16, "device": "cpu"}
    return load_settings(**{**options, **changes})


def weights_after(out, difficulty=HARD, distrust=None, **changes):
    train(dataset(), settings(**changes), out=out, difficulty=table(difficulty, distrust))
    return (out / "model.safetensors").read_bytes()


def rows_shown(tmp_path, difficulty=HARD, distrust=None, validation=None, **changes):
    """How often each sample was shown, epoch by epoch."""
    SEEN.clear()
    chosen = settings(model=f"python:{__name__}:watched_net", **changes)
    train(dataset(), chosen, out=tmp_path / "run", difficulty=table(difficulty, distrust), validation=validation)
    shown = np.concatenate(SEEN)
    scaled = shown[:, None] - _prepared()[None]
    rows = np.abs(scaled).sum(axis=2).argmin(axis=1)
    return [Counter(part.tolist()) for part in rows.reshape(-1, COUNT)]


def _prepared():
    """The points as the preprocessor gives them to the model: as they are, or standardised."""
    values = np.concatenate(SEEN)
    plain = np.abs(POINTS - values[0]).sum(axis=1).min() < 1e-5
    return POINTS if plain else (POINTS - POINTS.mean(axis=0)) / POINTS.std(axis=0)


def easiest(share, difficulty=HARD):
    """Rows of the easiest part of each class, rounded up."""
    rows = []
    for label in range(3):
        own = np.flatnonzero(label == LABELS)
        own = own[difficulty[own].argsort()]
        rows.extend(own[: int(np.ceil(share * len(own) - 1e-9))].tolist())
    return set(rows)


def test_the_share_grows_evenly_to_all():
    shares = [share_shown(0.5, 10, [{}] * epoch) for epoch in range(10)]
    np.testing.assert_allclose(shares, [0.15, 0.32, 0.49, 0.66, 0.83, 1, 1, 1, 1, 1])
    assert share_shown(1.0, 10, [{}] * 8) == pytest.approx(0.83)
    assert (share_shown(1.0, 10, [{}] * 9), share_shown(1.0, 1, []), share_shown(0.0, 10, [])) == (1, 1, 1)


def test_an_epoch_shows_the_easiest_of_every_class_as_often_as_each_other(tmp_path):
    epochs = rows_shown(tmp_path, curriculum=0.5)
    assert [len(counts) for counts in epochs] == [15, 54, 90, 90]
    assert set(epochs[0]) == easiest(0.15)
    assert set(epochs[1]) == easiest(0.575)
    assert set(epochs[0].values()) == {6}
    assert set(epochs[1].values()) <= {1, 2}
    assert set(epochs[2].values()) == {1}


def test_without_a_curriculum_every_epoch_shows_every_sample(tmp_path):
    assert all(counts == Counter(range(COUNT)) for counts in rows_shown(tmp_path))
    assert "share_shown" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_samples_that_are_left_out_come_last(tmp_path):
    distrust = np.where(HARD < 0.1, 0.9, 0.0)  # easy, and not believed
    first = set(rows_shown(tmp_path, distrust=distrust, curriculum=0.5)[0])
    assert len(first) == 15
    assert not first & set(np.flatnonzero(distrust).tolist())


def held_out(labels):
    ids = np.array([f"v{row}" for row in range(COUNT)], dtype=object)
    return Dataset("held-out", "vector", ids, labels, POINTS.__getitem__, "f")


@pytest.mark.parametrize("turned", [False, True])
def test_it_ends_where_the_few_samples_are_learnt_by_heart(turned, tmp_path):
    validation = held_out((LABELS + 1) % 3 if turned else LABELS)  # of the turned ones nearly all are told wrong
    epochs = rows_shown(tmp_path, validation=validation, curriculum=0.5, learning_rate=0.1)
    accuracies = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert (accuracies[0]["train_accuracy"] - accuracies[0]["validation_accuracy"] > 0.2) == turned
    assert [len(counts) for counts in epochs][:2] == [15, 90 if turned else 54]
    shares = [line["share_shown"] for line in accuracies]
    np.testing.assert_allclose(shares, [0.15, 1 if turned else 0.575, 1, 1])


def test_how_long_it_lasts():
    def lines(*gaps):
        return [{"train_accuracy": 0.5 + gap, "validation_accuracy": 0.5} for gap in gaps]

    assert epochs_held_back(0.5, 10, []) == 5
    assert epochs_held_back(0.5, 10, lines(0.0, 0.2, -0.3)) == 5
    assert epochs_held_back(0.5, 10, lines(0.0, 0.21, 0.0)) == 2
    assert epochs_held_back(0.5, 10, lines(0, 0, 0, 0, 0, 0.4)) == 5
    assert epochs_held_back(0.5, 10, [{"train_accuracy": 1.0}] * 3) == 5
    assert [epochs_held_back(length, 10, []) for length in (0.01, 0.45, 0.95, 1.0)] == [1, 5, 9, 9]
    assert epochs_held_back(0.0, 10, lines(0.4)) == 0


def test_doubt_waits_until_all_samples_are_shown():
    def doubt_after(count, curriculum, gap=0.0):
        line = {"train_accuracy": 0.5 + gap, "validation_accuracy": 0.5, "doubt": 0.4, "validation_temperature": 2.0}
        return next_doubt(settings(model="cnn-small", epochs=10, curriculum=curriculum), [line] * count, 100)

    assert [doubt_after(count, 0.0) > 0.4 for count in (2, 3, 4, 5, 6)] == [False, True, True, True, True]
    assert [doubt_after(count, 0.5) > 0.4 for count in (2, 3, 4, 5, 6)] == [False, False, False, True, True]
    assert [doubt_after(count, 0.5, gap=0.3) > 0.4 for count in (2, 3, 4)] == [False, True, True]


def test_which_samples_are_shown_once_more_is_random():
    curriculum = Curriculum.of(torch.linspace(0, 1, 50), torch.zeros(50, dtype=torch.int64), 0)
    counts = [
        torch.bincount(curriculum.rows(0.4, torch.Generator().manual_seed(seed)), minlength=50) for seed in (0, 1)
    ]
    for one in counts:
        assert one[:20].unique().tolist() == [2, 3]
        assert one[20:].sum() == 0
    assert not torch.equal(*counts)


def test_equally_hard_samples_are_shown_by_the_seed_of_the_run(tmp_path):
    first = [
        set(rows_shown(tmp_path / str(seed), difficulty=np.zeros(COUNT), curriculum=0.5, seed=seed)[0])
        for seed in (0, 1)
    ]
    assert first[0] != first[1]


def test_early_stopping_waits_until_all_samples_are_shown(tmp_path):
    turned = held_out((LABELS + 1) % 3)
    changes = {"curriculum": 0.9, "epochs": 8, "patience": 1, "doubt": 0.1, "learning_rate": 0.02, "mixup": 1.0}
    rows_shown(tmp_path, validation=turned, **changes)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held = sum(line["share_shown"] < 1 for line in lines)
    losses = [line["validation_loss"] for line in lines]
    assert held >= 1
    assert losses[0] == min(losses)  # by which it would have ended after the second epoch
    assert len(lines) >= held + 2


def test_validation_data_that_may_end_it_are_part_of_the_run_and_not_trained_on(tmp_path):
    def begin(**data):
        chosen = settings(curriculum=0.5, doubt=0.1)
        return train(dataset(), chosen, out=tmp_path / "run", difficulty=table(), **data)

    with pytest.raises(InputError, match="as curriculum is learnt from it; 90 samples of blobs are"):
        begin(validation=dataset())
    begin(validation=held_out(LABELS))
    for other in (None, held_out((LABELS + 1) % 3)):
        with pytest.raises(ResumeError, match="validation was"):
            begin(validation=other, resume=True)
    with pytest.raises(InputError, match="`validation` must be given to choose alpha with a curriculum"):
        train_with_chosen_alpha(dataset(), settings(curriculum=0.5), out=tmp_path / "auto", difficulty=table())


def test_the_highest_doubt_does_not_end_by_accuracy_on_easy_samples():
    def doubt_after(count, curriculum):
        line = {"train_accuracy": 0.6, "validation_accuracy": 0.5, "doubt": 4.0, "validation_temperature": 1.0}
        return next_doubt(settings(epochs=60, curriculum=curriculum), [line] * count, 100)

    assert (doubt_after(3, 0.0), doubt_after(3, 0.2), doubt_after(12, 0.2), doubt_after(13, 0.2)) == (0.4, 4, 4, 0.4)


def test_equally_hard_samples_come_in_an_order_of_the_seed():
    weights, labels = torch.ones(40), torch.arange(40) % 2
    one, same, other = (Curriculum.of(weights, labels, seed).places for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[labels == 0], one[labels == 0].sort().values)
    for label in (0, 1):
        np.testing.assert_allclose(one[labels == label].sort().values, np.arange(20) / 20)


def test_a_class_of_one_sample_is_shown_from_the_first():
    curriculum = Curriculum.of(torch.linspace(0.1, 1, 11), torch.tensor([0] * 10 + [1]), 0)
    rows = curriculum.rows(0.15, torch.Generator().manual_seed(0))
    assert set(rows.tolist()) == {0, 1, 10}
    assert len(rows) == 11


def test_rows_are_shuffled_anew_in_every_epoch(tmp_path):
    rows_shown(tmp_path, curriculum=1.0)
    epochs = np.concatenate(SEEN).reshape(4, COUNT, 4)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0][:15], epochs[0][15:30])


def test_a_curriculum_changes_the_weights_and_its_length_does(tmp_path):
    none = weights_after(tmp_path / "none")
    assert none == weights_after(tmp_path / "zero", curriculum=0.0)
    half, whole = (weights_after(tmp_path / str(length), curriculum=length) for length in (0.5, 1.0))
    assert len({none, half, whole}) == 3


def test_losses_with_difficulty_take_one_and_without_a_bonus_it_is_of_cross_entropy(tmp_path):
    plain = [weights_after(tmp_path / str(length), doubt=0.0, curriculum=length) for length in (0.0, 0.5)]
    assert plain[0] != plain[1]
    for loss in ("difficulty-smoothing", "difficulty-temperature"):
        found = [weights_after(tmp_path / f"{loss}-{length}", loss=loss, curriculum=length) for length in (0.0, 0.5)]
        assert found[0] != found[1]


def test_it_is_resumed_to_the_same_bytes(tmp_path):
    def stop(progress):
        if progress.epoch_done and progress.epoch == 1:
            raise KeyboardInterrupt

    whole = weights_after(tmp_path / "whole", curriculum=1.0)
    chosen = settings(curriculum=1.0)
    with pytest.raises(KeyboardInterrupt):
        train(dataset(), chosen, out=tmp_path / "parts", difficulty=table(), progress=stop, checkpoint_seconds=0.0)
    with pytest.raises(ResumeError, match=r"curriculum was 1\.0"):
        train(dataset(), settings(), out=tmp_path / "parts", difficulty=table(), resume=True)
    train(dataset(), chosen, out=tmp_path / "parts", difficulty=table(), resume=True)
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == whole


def test_runs_from_before_there_was_a_curriculum_had_none(tmp_path):
    left_open = settings(model="cnn-small", augment="crop-flip", image_size=8, width=4)
    train(pictures("seen", 8), left_open, out=tmp_path / "run", difficulty=table())
    config = tmp_path / "run" / "config.toml"
    assert "curriculum" not in config.read_text()
    assert open_run(tmp_path / "run").settings.curriculum is None
    config.write_text(config.read_text().replace("soft_targets = 0.0\n", ""))
    assert open_run(tmp_path / "run").settings.curriculum == 0


def test_settings_leave_it_open_where_doubt_is_learnt_from_augmented_images():
    images = {"model": "cnn-small", "augment": "crop-flip"}
    assert settings(**images).curriculum is None
    assert settings(**images, restart=False, distrust=False).curriculum is None
    assert settings(**{**images, "model": "timm:resnet18"}, pretrained=False).curriculum is None
    assert settings(**{**images, "augment": "auto"}).curriculum is None
    assert settings(**images, curriculum=0.25).curriculum == 0.25
    for changes in (
        {"curriculum": 0.0},
        {"augment": "none"},
        {"loss": "cross-entropy"},
        {"loss": "difficulty-smoothing"},
        {"doubt": 0.3},
        {"alpha": 0.1},
        {"preset": "paper"},
        {"normalizer": "none"},
        {"model": "mlp"},
        {"model": "timm:resnet18"},
        {"model": "python:mine:net"},
        {"mixup": 1.0},
        {"soft_targets": 0.5},
        {"dynamics": True},
        {"patience": 3},
    ):
        assert settings(**{**images, **changes}).curriculum == 0, changes


def test_where_it_is_left_open_it_takes_validation_data_augmentation_and_samples_that_differ():
    weights, equal = torch.linspace(0.1, 1, 5), torch.ones(5)
    left_open, given = (settings(model="cnn-small", augment="auto", **more) for more in ({}, {"curriculum": 0.3}))
    assert length_of(left_open, weights, ends=True, augmented=True) == 0.5
    assert length_of(left_open, weights, ends=False, augmented=True) == 0
    assert length_of(left_open, weights, ends=True, augmented=False) == 0
    for without in (equal, torch.tensor([1.0, 1, 2, 1, 1]), torch.tensor([2.0, 2])):  # 2 is left out
        assert length_of(left_open, without, ends=True, augmented=True) == 0
    assert length_of(given, equal, ends=False, augmented=False) == 0.3


def pictures(name, side=16, first=0):
    random = np.random.default_rng(first)
    labels = LABELS if first == 0 else np.roll(LABELS, first)
    pixels = (40 * labels[:, None, None, None] + random.integers(0, 176, (COUNT, side, side, 3))).astype(np.uint8)
    ids = np.array([f"{name}{row}" for row in range(COUNT)], dtype=object) if first else IDS
    return Dataset(name, "image", ids, labels, lambda row: Image.fromarray(pixels[row]), f"{name}{side}")


@pytest.mark.parametrize(
    ("changes", "side", "validated", "hard", "as_with"),
    [
        ({"augment": "crop-flip"}, 8, True, HARD, 0.5),
        ({"augment": "auto"}, 16, True, HARD, 0.5),
        ({"augment": "auto"}, 8, True, HARD, 0.0),
        ({"augment": "none"}, 16, True, HARD, 0.0),
        ({"augment": "crop-flip"}, 8, False, HARD, 0.0),
        ({"augment": "crop-flip"}, 8, True, np.zeros(COUNT), 0.0),
    ],
)
def test_what_is_left_open_is_what_that_setting_gives(tmp_path, changes, side, validated, hard, as_with):
    def run(name, **more):
        chosen = settings(model="cnn-small", image_size=side, width=4, **changes, **more)
        validation = pictures("held-out", side, 1) if validated else None
        train(pictures("seen", side), chosen, out=tmp_path / name, difficulty=table(hard), validation=validation)
        return (tmp_path / name / "model.safetensors").read_bytes()

    weights = run("open")
    assert weights == run("given", curriculum=as_with)
    assert weights != run("other", curriculum=0.25)
    lines = [json.loads(line) for line in (tmp_path / "open" / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("share_shown", 1) < 1 for line in lines] == [as_with > 0, as_with > 0, False, False]
    assert ("curriculum = " in (tmp_path / "open" / "config.toml").read_text()) == (changes["augment"] == "none")


def test_one_that_was_left_open_is_resumed_to_the_same_bytes(tmp_path):
    def run(name, workers=None, **options):
        loading = {"loading": "workers", "num_workers": 0} if workers else {}
        chosen = settings(model="cnn-small", augment="crop-flip", image_size=8, width=4, **loading)
        parts = {"difficulty": table(), "validation": pictures("held-out", 8, 1)}
        train(pictures("seen", 8), chosen, out=tmp_path / name, **parts, checkpoint_seconds=0.0, **options)
        return (tmp_path / name / "model.safetensors").read_bytes()

    def stop(progress):
        if progress.epoch_done and progress.epoch == 1:
            raise KeyboardInterrupt

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", progress=stop)
    assert run("parts", resume=True) == whole == run("streamed", workers=True)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["share_shown"] == 0.15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curriculum": 1.5}, "`curriculum` must be at least 0 and at most 1; got 1.5"),
        ({"curriculum": -0.1}, "`curriculum` must be at least 0 and at most 1; got -0.1"),
        (
            {"loss": "cross-entropy", "curriculum": 0.5},
            "`curriculum` must be 0 with the loss 'cross-entropy', which is given no difficulty; got 0.5. For "
            "cross-entropy with one: --loss difficulty-aware --set doubt=0.",
        ),
        ({"curriculum": 0.5, "preset": "paper"}, "`normalizer` must not be none with a curriculum"),
        ({"curriculum": 0.5, "dynamics": True}, "`dynamics` must be false with a curriculum"),
    ],
)
def test_what_does_not_go_together(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


@pytest.mark.slow
def test_two_processes_show_the_same_samples_as_one(tmp_path):
    for devices in (1, 2):
        weights_after(tmp_path / str(devices), curriculum=0.75, devices=devices, dropout=0.0)
    one, two = (
        [
            json.loads(line)["train_loss"]
            for line in (tmp_path / str(devices) / "metrics.jsonl").read_text().splitlines()
        ]
        for devices in (1, 2)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5)
