"""Doubt that is learnt from validation data."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffident.data.dataset import Dataset
from diffident.data.samples import ReadVector
from diffident.difficulties.weights import difficulty_weights
from diffident.errors import InputError, ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.training import train, train_with_chosen_alpha
from diffident.training.doubt import bonus_of_epoch, next_doubt, temperature_of

AWARE = load_settings(model="mlp", loss="difficulty-aware", epochs=30)
IMAGES = load_settings(model="resnet18-32px", loss="difficulty-aware", epochs=30)


def lines(count, doubt, temperature=1.0, *, gap=0.0):
    line = {"doubt": doubt, "validation_temperature": temperature}
    return [{**line, "train_accuracy": 0.5 + gap, "validation_accuracy": 0.5}] * count


def doubt_after(settings, before, steps=100):
    return next_doubt(settings, before, steps)


def test_doubt_rises_where_the_network_is_too_sure_and_falls_where_it_is_not():
    assert doubt_after(IMAGES, []) == 0.4
    assert doubt_after(AWARE, lines(8, 0.2, 3.0)) == 0.2  # too early to tell
    assert doubt_after(AWARE, lines(9, 0.2, math.e)) == pytest.approx(0.2 + 12 / 30)
    assert doubt_after(AWARE, lines(9, 0.2, math.exp(-0.25))) == pytest.approx(0.1)
    assert doubt_after(AWARE, lines(9, 0.2, 1.0)) == 0.2
    assert doubt_after(AWARE, lines(9, 0.2, 1e9)) == 4
    assert doubt_after(AWARE, lines(9, 0.2, 1e-9)) == 0
    assert doubt_after(load_settings(model="timm:resnet18", loss="difficulty-aware"), []) == 0.1
    assert doubt_after(load_settings(model="timm:resnet18", loss="difficulty-aware", pretrained=False), []) == 0.4
    assert doubt_after(load_settings(model="python:my:net", loss="difficulty-aware"), []) == 0.4
    few = load_settings(model="mlp", loss="difficulty-aware", epochs=3)
    assert doubt_after(few, lines(1, 0.2, math.exp(0.5))) == pytest.approx(0.2 + 0.6 * 0.5)


@pytest.mark.parametrize("model", ["mlp", "ngrams"])
def test_features_and_words_begin_with_the_highest_doubt(model):
    settings = load_settings(model=model, loss="difficulty-aware", epochs=30)
    assert doubt_after(settings, []) == 4
    assert doubt_after(settings, lines(12, 4.0, 0.1, gap=0.04)) == 4
    assert doubt_after(settings, lines(13, 4.0, 0.1)) == 0.4  # 45 % of the epochs, rounded down
    assert doubt_after(settings, lines(2, 4.0, 0.1, gap=0.06)) == 0.4  # it learns by heart
    assert doubt_after(settings, [*lines(2, 4.0), *lines(3, 0.4)]) == 0.4
    assert doubt_after(settings, [*lines(9, 4.0), *lines(2, 0.2, math.e)]) == pytest.approx(0.2 + 3 * 12 / 30)
    assert doubt_after(settings, [*lines(9, 4.0), *lines(2, 0.2, math.exp(-0.25))]) == pytest.approx(0.1)
    assert doubt_after(settings, [*lines(8, 4.0), *lines(2, 0.2, math.e)]) == pytest.approx(0.2 + 12 / 30)
    risen = [*lines(2, 4.0), *lines(7, 0.4), *lines(1, 4.0, math.exp(-0.25))]  # by itself
    assert doubt_after(settings, risen) == pytest.approx(3.9)
    for steps, full in [(200, 13), (60, 13), (50, 12), (32, 1), (31, 0)]:  # 900 steps must follow
        doubts = [doubt_after(settings, lines(count, 4.0), steps) for count in range(14)]
        assert doubts == [4] * full + [0.4] * (14 - full)
    assert doubt_after(load_settings(model=model, loss="difficulty-aware", patience=5), []) == 0.4


def test_doubt_above_nine_tenths_makes_more_samples_as_unsure():
    weights = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 2.0])
    for doubt, of_loss, seen in [
        (0.0, 0.0, [0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 2.0]),
        (0.019, 0.0, [0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 2.0]),  # so small a bonus is strong still
        (0.02, 0.02, [0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 2.0]),
        (0.9, 0.9, [0.0, 0.2, 0.5, 0.8, 1.0, 1.3, 2.0]),
        (1.8, 0.9, [0.0, 0.4, 1.0, 1.0, 1.0, 1.3, 2.0]),
    ]:
        bonus = bonus_of_epoch(AWARE, doubt)
        assert bonus.options == {"doubt": of_loss}
        torch.testing.assert_close(bonus.weights_seen(weights), torch.tensor(seen))
    assert bonus_of_epoch(AWARE, 1.8).weights_seen(None) is None


def test_less_of_the_others_counts_where_labels_are_learnt_by_heart():
    for model in ("resnet18-32px", "python:mine:net"):
        settings = load_settings(model=model, loss="difficulty-aware")
        for doubt, others in [(0.02, 1.0), (0.4, 1.0), (0.5, 0.6), (0.55, 0.4), (0.6, 0.2), (4.0, 0.2), (None, 1.0)]:
            assert bonus_of_epoch(settings, doubt).options["others"] == pytest.approx(others), doubt


@pytest.mark.parametrize(
    ("given", "temperature", "doubt", "expected"),
    [
        ({}, 0.7, 0.4, 0.7),
        ({}, 0.7, 0.02, 0.7),
        ({}, 0.7, 0.5, 0.42),
        ({}, 0.7, 0.6, 0.3),
        ({}, 0.7, 0.9, 0.3),
        ({"temperature": 0.2}, 0.2, 0.9, 0.2),
        ({"others": 1.0}, 0.7, 0.9, 0.7),
        ({"model": "ngrams"}, 0.7, 0.9, 0.7),
        ({"model": "mlp"}, 0.3, 0.9, 0.3),
    ],
)
def test_weights_get_sharper_where_labels_are_learnt_by_heart(given, temperature, doubt, expected):
    settings = load_settings(**{"model": "resnet18-32px", "loss": "difficulty-aware", **given})
    assert settings.temperature == temperature
    weights = torch.cat([difficulty_weights(torch.arange(9.0), temperature=temperature), torch.tensor([1.4, 2.0])])
    sharper = torch.cat([difficulty_weights(torch.arange(9.0), temperature=expected), torch.tensor([1.4, 2.0])])
    torch.testing.assert_close(bonus_of_epoch(settings, doubt).weights_seen(weights), sharper)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"model": "resnet18-32px", "doubt": 0.7}, {"others": 1.0}),
        ({"model": "resnet18-32px", "others": 0.7}, {"doubt": 0.7}),
        ({"model": "resnet18-32px", "alpha": 0.2}, {}),
        ({"model": "resnet18-32px", "loss": "focal"}, {}),
        ({"model": "ngrams"}, {"doubt": 0.7}),
        ({"model": "mlp"}, {"doubt": 0.7}),
        ({"model": "timm:resnet18"}, {"doubt": 0.7}),
    ],
)
def test_training_decides_what_settings_leave_open(given, options):
    settings = load_settings(**{"loss": "difficulty-aware", **given})
    assert bonus_of_epoch(settings, 0.7).options == options


@pytest.mark.parametrize(
    ("given", "doubt"),
    [
        ({"model": "resnet18-32px"}, 0.1),
        ({"model": "resnet18-32px", "others": 0.2}, 0.1),
        ({"model": "timm:resnet18"}, 0.1),
        ({"model": "mlp"}, 0.4),
        ({"model": "mlp", "others": 1.0}, 0.4),
        ({"model": "mlp", "doubt": 0.3}, None),
        ({"model": "mlp", "alpha": 0.3}, None),
    ],
)
def test_doubt_without_validation_data_follows_the_model(given, doubt):
    settings = load_settings(**{"loss": "difficulty-aware", **given})
    assert bonus_of_epoch(settings, None).options.get("doubt") == doubt


def test_the_temperature_is_above_1_where_logits_are_too_sure():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert temperature_of(2 * logits, labels) == pytest.approx(2, rel=0.1)


def drawn(count, seed):
    generator = np.random.default_rng(seed)
    right = generator.integers(0, 3, count)
    return generator, right, (generator.normal(size=(count, 8)) + 1.2 * np.eye(8)[right]).astype(np.float32)


def dataset(count, seed, flipped=0.0):
    generator, right, values = drawn(count, seed)
    labels = np.where(generator.random(count) < flipped, generator.integers(0, 3, count), right)
    ids = np.array([f"{seed}:{row}" for row in range(count)], dtype=object)
    return Dataset(f"set{seed}", "vector", ids, labels, ReadVector(values), str(seed))


@pytest.fixture(scope="module")
def table():
    data = dataset(300, 1, flipped=0.2)
    difficulty = -drawn(300, 1)[2][np.arange(300), data.labels].astype(np.float64)
    rank = difficulty.argsort().argsort() / 299
    return data, DifficultyTable(data.ids, data.labels, difficulty, rank, data.labels, np.zeros(300))


def metrics_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_training_makes_the_validation_temperature_1(tmp_path, table):
    data, difficulty = table
    settings = load_settings(
        model="mlp", loss="difficulty-aware", epochs=40, dropout=0.0, learning_rate=3e-3, temperature=1.0
    )
    run = train(data, settings, out=tmp_path / "run", difficulty=difficulty, validation=dataset(500, 2))
    found = metrics_of(run)
    assert [line["doubt"] for line in found[:12]] == [0.4] * 12
    for before, after in itertools.pairwise(found[12:]):
        assert after["doubt"] == doubt_after(run.settings, [before] * before["epoch"])
    plain = train(
        data,
        load_settings(model="mlp", epochs=40, dropout=0.0, learning_rate=3e-3),
        out=tmp_path / "plain",
        validation=dataset(500, 2),
    )
    ours, theirs = (
        temperature_of(made.logits, made.labels)
        for made in (read_predictions(one.predictions("validation")) for one in (run, plain))
    )
    assert theirs > 1.5
    assert abs(math.log(ours)) < abs(math.log(theirs)) / 2


def test_without_validation_data_it_is_two_fifths(tmp_path, table):
    data, difficulty = table
    losses = []
    for doubt in (None, 0.4):
        settings = load_settings(model="mlp", loss="difficulty-aware", epochs=1, doubt=doubt)
        run = train(data, settings, out=tmp_path / str(doubt), difficulty=difficulty)
        losses.append(metrics_of(run)[0]["train_loss"])
        assert "doubt" not in metrics_of(run)[0]
    assert losses[0] == losses[1]


def test_validation_data_of_a_run_stay_the_same_and_are_not_trained_on(tmp_path, table):
    data, difficulty = table
    settings = load_settings(model="mlp", loss="difficulty-aware", epochs=2)
    shared = {"out": tmp_path / "run", "difficulty": difficulty}
    train(data, settings, validation=dataset(50, 2), **shared)
    with pytest.raises(ResumeError, match="data validation was"):
        train(data, settings, validation=dataset(50, 3), resume=True, **shared)
    with pytest.raises(ResumeError, match=r"data validation was '\w+', now None"):
        train(data, settings, resume=True, **shared)
    with pytest.raises(InputError, match="must not be trained on, as doubt is learnt from it; 300 samples of set1 are"):
        train(data, settings, validation=data, out=tmp_path / "new", difficulty=difficulty)
    part = replace(data.select(np.arange(50)), name="part", fingerprint="another file")
    with pytest.raises(InputError, match="must not be trained on, as doubt is learnt from it; 50 samples of part are"):
        train(data, settings, validation=part, out=tmp_path / "new", difficulty=difficulty)
    other = replace(dataset(50, 2), ids=data.ids[:50])  # called alike, other samples
    train(data, settings, validation=other, out=tmp_path / "alike", difficulty=difficulty)
    fixed = load_settings(model="mlp", loss="difficulty-aware", epochs=2, doubt=0.2)
    train(data, fixed, validation=data, out=tmp_path / "new", difficulty=difficulty)


def test_alpha_is_not_chosen_beside_a_doubt(tmp_path, table):
    data, difficulty = table
    settings = load_settings(model="mlp", loss="difficulty-aware", doubt=0.2)
    with pytest.raises(InputError, match=r"`doubt` must not be set where alpha is `auto`; got 0\.2"):
        train_with_chosen_alpha(data, settings, out=tmp_path / "run", difficulty=difficulty)


@pytest.mark.parametrize(
    ("given", "last", "begin"),
    [({"epochs": 12}, 7, [0.4, 0.4, 0.4, 0.4]), ({"epochs": 26, "batch_size": 8}, 1, [4.0, 4.0, 0.4, 0.4])],
)
def test_a_resumed_run_ends_in_the_same_bytes(given, last, begin, tmp_path, table):
    data, difficulty = table
    settings = load_settings(model="mlp", loss="difficulty-aware", **given)
    shared = {"difficulty": difficulty, "validation": dataset(200, 2), "checkpoint_seconds": 0.0}

    def stop(progress):
        if progress.epoch_done and progress.epoch == last:
            raise KeyboardInterrupt

    whole = train(data, settings, out=tmp_path / "whole", **shared)
    with pytest.raises(KeyboardInterrupt):
        train(data, settings, out=tmp_path / "run", progress=stop, **shared)
    resumed = train(data, settings, out=tmp_path / "run", resume=True, **shared)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    doubts = [line["doubt"] for line in metrics_of(whole)]
    assert [line["doubt"] for line in metrics_of(resumed)] == doubts
    assert doubts[:4] == begin
