import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.losses import LOSSES, CorrectnessHistory, CorrectnessRankingLoss, Mixing
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.training import train

SETTINGS = load_settings(model="mlp", epochs=4, batch_size=16, width=16, device="cpu", learning_rate=0.05, dropout=0.01)


def vectors(count=64):
    values = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    ids = np.array([f"s{row}" for row in range(count)], dtype=object)
    labels = (values[:, 0] > 0).astype(np.int64)
    return Dataset("toy", "vector", ids, labels, values.__getitem__, "f", ("a", "b"))


def table_of(dataset):
    number = np.arange(len(dataset), dtype=np.float64)
    return DifficultyTable(dataset.ids, dataset.labels, number, number, dataset.labels, number)


def bytes_of(run):
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_trains(name, tmp_path):
    data = vectors()
    settings = load_settings(**{**asdict(SETTINGS), "loss": name})
    train(data, settings, out=tmp_path / "r", difficulty=table_of(data), test=data)
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    if name != "crl":  # ranks from its second epoch on
        assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert lines[-1]["train_accuracy"] > (0.55 if name == "mixup" else 0.75)


def test_a_run_stopped_within_an_epoch_goes_on_with_its_history(tmp_path, monkeypatch):
    settings = replace(SETTINGS, loss="crl")
    train(vectors(), settings, out=tmp_path / "whole")
    count, batch_done = 0, CorrectnessHistory.batch_done

    def stop(self, *arguments):
        nonlocal count
        count += 1
        if count == 14:  # 4 steps an epoch: in the fourth
            raise KeyboardInterrupt
        batch_done(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CorrectnessHistory, "batch_done", stop)
        with pytest.raises(KeyboardInterrupt):
            train(vectors(), settings, out=tmp_path / "parts", checkpoint_seconds=0.0)
    state = torch.load(tmp_path / "parts/checkpoint/last.pt", weights_only=True)["history"]
    assert state["epochs"] == 3
    assert 0 < int(state["counts"].sum()) < 3 * 64
    train(vectors(), settings, out=tmp_path / "parts", resume=True)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    # Without what was right before, the fourth epoch would be another.
    monkeypatch.setattr(CorrectnessHistory, "shares", lambda self: torch.zeros(64))
    train(vectors(), settings, out=tmp_path / "forgetful")
    assert bytes_of(tmp_path / "forgetful") != bytes_of(tmp_path / "whole")


def test_a_sample_has_its_own_history(tmp_path, monkeypatch):
    seen, shares, compute = [], torch.arange(64) / 64, CorrectnessRankingLoss.compute

    def computed(self, logits, labels, weights):
        seen.append([weights])
        return compute(self, logits, labels, weights)

    monkeypatch.setattr(CorrectnessHistory, "shares", lambda self: shares)
    monkeypatch.setattr(CorrectnessHistory, "batch_done", lambda self, *arguments: seen[-1].extend(arguments))
    monkeypatch.setattr(CorrectnessRankingLoss, "compute", computed)
    data = vectors()
    train(data, replace(SETTINGS, loss="crl"), out=tmp_path / "r")
    for weights, rows, logits, labels in seen:
        assert torch.equal(weights, shares[rows])
        assert torch.equal(labels, torch.from_numpy(data.labels)[rows])
        assert len(logits) == len(rows)
    assert sorted(torch.cat([rows for _, rows, _, _ in seen[:4]]).tolist()) == list(range(64))


@pytest.mark.parametrize("name", ["mixup", "regmixup"])
def test_mixing_images_resumes_to_the_same_bytes(name, tmp_path):
    def stop(progress):
        if progress.epoch == 1 and progress.epoch_done:
            raise KeyboardInterrupt

    data = open_dataset("digits", limit=48)
    settings = load_settings(model="cnn-small", loss=name, epochs=2, batch_size=16, width=4, device="cpu")
    train(data, settings, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(data, settings, out=tmp_path / "parts", progress=stop, checkpoint_seconds=0.0)
    train(data, settings, out=tmp_path / "parts", resume=True)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    train(data, replace(settings, accumulation=2), out=tmp_path / "accumulated")
    assert bytes_of(tmp_path / "accumulated") != bytes_of(tmp_path / "whole")  # partners come from the part


@pytest.mark.parametrize("name", ["mixup", "regmixup"])
def test_the_model_is_shown_mixtures(name, tmp_path, monkeypatch):
    shown, inputs = [], Mixing.inputs
    monkeypatch.setattr(Mixing, "inputs", lambda self, *both: shown.append(self.share) or inputs(self, *both))
    train(vectors(), replace(SETTINGS, loss=name), out=tmp_path / "r")
    assert len(shown) == 4 * 4
    assert len(set(shown)) == len(shown)  # a share for each batch


def test_cross_entropy_of_mixtures_is_mixup(tmp_path):
    train(vectors(), replace(SETTINGS, loss="mixup", alpha=0.4), out=tmp_path / "loss")
    train(vectors(), replace(SETTINGS, mixup=0.4), out=tmp_path / "setting")
    assert bytes_of(tmp_path / "loss") == bytes_of(tmp_path / "setting")
    train(vectors(), SETTINGS, out=tmp_path / "plain")
    assert bytes_of(tmp_path / "plain") != bytes_of(tmp_path / "setting")


def test_mixing_nothing_is_cross_entropy(tmp_path):
    # The same shuffling and dropout; mixing draws from the generator after the order of the epoch is known.
    train(vectors(), replace(SETTINGS, loss="mixup", alpha=0.0), out=tmp_path / "mixup")
    train(vectors(), SETTINGS, out=tmp_path / "plain")
    one, other = (torch.load(tmp_path / name / "checkpoint/last.pt")["model"] for name in ("mixup", "plain"))
    torch.testing.assert_close(one, other)
