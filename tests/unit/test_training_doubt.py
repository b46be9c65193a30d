"""Doubt that is learnt from validation data."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from diffident.data.dataset import Dataset
from diffident.data.samples import ReadVector
from diffident.errors import InputError, ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.training import train, train_with_chosen_alpha
from diffident.training.doubt import next_doubt, temperature_of

AWARE = load_settings(model="mlp", loss="difficulty-aware", epochs=30)


def lines(count, doubt, temperature):
    return [{"doubt": doubt, "validation_temperature": temperature}] * count


def test_doubt_rises_where_the_network_is_too_sure_and_falls_where_it_is_not():
    assert next_doubt(AWARE, []) == 0.4
    assert next_doubt(AWARE, lines(8, 0.2, 3.0)) == 0.2  # too early to tell
    assert next_doubt(AWARE, lines(9, 0.2, math.e)) == pytest.approx(0.2 + 12 / 30)
    assert next_doubt(AWARE, lines(9, 0.2, math.exp(-0.25))) == pytest.approx(0.1)
    assert next_doubt(AWARE, lines(9, 0.2, 1.0)) == 0.2
    assert next_doubt(AWARE, lines(9, 0.2, 1e9)) == 0.9
    assert next_doubt(AWARE, lines(9, 0.2, 1e-9)) == 0.02
    assert next_doubt(load_settings(model="timm:resnet18", loss="difficulty-aware"), []) == 0.1
    assert next_doubt(load_settings(model="timm:resnet18", loss="difficulty-aware", pretrained=False), []) == 0.4
    few = load_settings(model="mlp", loss="difficulty-aware", epochs=3)
    assert next_doubt(few, lines(1, 0.2, math.exp(0.5))) == pytest.approx(0.2 + 0.6 * 0.5)


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
        assert after["doubt"] == next_doubt(run.settings, [before] * before["epoch"])
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
    fixed = load_settings(model="mlp", loss="difficulty-aware", epochs=2, doubt=0.2)
    train(data, fixed, validation=data, out=tmp_path / "new", difficulty=difficulty)


def test_alpha_is_not_chosen_beside_a_doubt(tmp_path, table):
    data, difficulty = table
    settings = load_settings(model="mlp", loss="difficulty-aware", doubt=0.2)
    with pytest.raises(InputError, match=r"`doubt` must not be set where alpha is `auto`; got 0\.2"):
        train_with_chosen_alpha(data, settings, out=tmp_path / "run", difficulty=difficulty)


def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, table, monkeypatch):
    data, difficulty = table
    settings = load_settings(model="mlp", loss="difficulty-aware", epochs=12)
    shared = {"difficulty": difficulty, "validation": dataset(200, 2), "checkpoint_seconds": 0.0}

    def stop(progress):
        if progress.epoch_done and progress.epoch == 7:
            raise KeyboardInterrupt

    whole = train(data, settings, out=tmp_path / "whole", **shared)
    with pytest.raises(KeyboardInterrupt):
        train(data, settings, out=tmp_path / "run", progress=stop, **shared)
    resumed = train(data, settings, out=tmp_path / "run", resume=True, **shared)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert [line["doubt"] for line in metrics_of(resumed)] == [line["doubt"] for line in metrics_of(whole)]
