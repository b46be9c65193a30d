import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score
from torch import nn

from diffident.cli import main
from diffident.data.dataset import Dataset
from diffident.settings import load_settings
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.dynamics import DYNAMICS, read_dynamics
from diffident.training import train

SETTINGS = load_settings(model="mlp", epochs=4, batch_size=16, width=16, device="cpu", dynamics=True)


class Zero(nn.Module):
    """Starts with logits of 0, and only then."""

    def __init__(self, classes):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, inputs):
        return self.bias.expand(len(inputs), -1)


def blobs():
    """300 points around 3 centres, their labels with every fifth one wrong, and which are wrong."""
    points, labels = make_blobs(300, n_features=4, centers=3, cluster_std=1.0, random_state=3)
    wrong = np.arange(300) % 5 == 0
    return points.astype(np.float32), np.where(wrong, (labels + 1) % 3, labels).astype(np.int64), wrong


def dataset():
    points, labels, _ = blobs()
    ids = np.array([f"s{row}" for row in range(300)], dtype=object)
    return Dataset("blobs", "vector", ids, labels, points.__getitem__, "f")


def files_of(run):
    return {file.name: file.read_bytes() for file in (run / DYNAMICS).iterdir()}


def test_wrong_labels_are_found_from_the_command_line(tmp_path):
    points, labels, wrong = blobs()
    ids = np.array([f"s{row}" for row in range(300)])
    np.savez(tmp_path / "blobs.npz", features=points, labels=labels, ids=ids)
    run, out = str(tmp_path / "run"), str(tmp_path / "d.parquet")
    options = ["--model", "mlp", "--epochs", "10", "--out", run]
    settings = ["--set", "dynamics=true", "batch_size=16", "device=cpu", "learning_rate=0.01"]
    assert main(["train", str(tmp_path / "blobs.npz"), *options, *settings]) == 0
    assert main(["score", run, "--method", "training-dynamics", "--out", out]) == 0
    table = read_difficulty_table(out)
    assert table.ids.tolist() == ids.tolist()
    assert roc_auc_score(wrong, table.difficulty) > 0.97
    assert (table.margin > 0)[wrong].mean() > 0.9


def test_logits_are_those_from_before_the_update(tmp_path):
    settings = replace(SETTINGS, model=f"python:{__name__}:Zero", epochs=2, batch_size=300)
    train(dataset(), settings, out=tmp_path / "run")
    seen = read_dynamics(tmp_path / "run")
    assert seen.labels.tolist() == blobs()[1].tolist()
    assert (seen.predictions[:, 0] == seen.labels).all()
    assert (seen.margins[:, 0] == 0).all()
    np.testing.assert_allclose(seen.label_probs[:, 0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(seen.el2n[:, 0], math.sqrt(2 / 3), rtol=1e-6)
    assert (seen.margins[:, 1] != 0).all()


def test_weights_and_metrics_are_the_same_without(tmp_path):
    for name, dynamics in (("with", True), ("without", False)):
        train(dataset(), replace(SETTINGS, dynamics=dynamics), out=tmp_path / name)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without"))
    assert one == other
    assert sorted(files_of(tmp_path / "with")) == [f"epoch-0000{epoch}.parquet" for epoch in (1, 2, 3, 4)]
    assert not (tmp_path / "without" / DYNAMICS).exists()


def stop_after(epochs):
    def stop(progress):
        if progress.epoch_done and progress.epoch == epochs:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 3600.0])
def test_a_resumed_run_ends_in_the_same_files(checkpoint_seconds, tmp_path):
    train(dataset(), SETTINGS, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(dataset(), SETTINGS, out=parts, progress=stop_after(3), checkpoint_seconds=checkpoint_seconds)
    train(dataset(), SETTINGS, out=parts, resume=True)
    assert files_of(parts) == files_of(tmp_path / "whole")


def test_what_lies_beyond_the_checkpoint_is_discarded(tmp_path):
    train(dataset(), SETTINGS, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(dataset(), SETTINGS, out=parts, progress=stop_after(2), checkpoint_seconds=0.0)
    for leftover in ("epoch-00004.parquet", ".epoch-00003.parquet.0123abcd.tmp"):
        (parts / DYNAMICS / leftover).write_bytes(b"cut off")
    with pytest.raises(KeyboardInterrupt):
        train(dataset(), SETTINGS, out=parts, resume=True, progress=stop_after(3))
    whole = files_of(tmp_path / "whole")
    assert files_of(parts) == {name: whole[name] for name in sorted(whole)[:3]}
