import importlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffident.data.dataset import Dataset
from diffident.errors import IdMismatchError, InputError, ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.training import NonFiniteLossError, predict, train
from diffident.training.augmentation import CropAndFlip

SETTINGS = load_settings(model="mlp", epochs=4, batch_size=8, width=16, device="cpu", learning_rate=0.01)


VICTIM = """
import os, signal, sys
from torch import nn
from diffident.data import open_dataset
from diffident.settings import load_settings
from diffident.training import train

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, classes))
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        if self.calls == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(inputs)

def run(out, **options):
    settings = load_settings(model="python:victim:Net", epochs=4, batch_size=32, device="cpu", dynamics=True)
    train(open_dataset("digits", limit=128), settings, out=out, **options)

if __name__ == "__main__":
    run(sys.argv[1], checkpoint_seconds=float(sys.argv[2]))
"""


def vectors(count=41, names=("a", "b"), first=0):
    values = np.random.default_rng(first).normal(size=(count, 3)).astype(np.float32)
    ids = np.array([f"s{first + row}" for row in range(count)], dtype=object)
    return Dataset("toy", "vector", ids, (values[:, 0] > 0).astype(np.int64), values.__getitem__, "f", names)


def table_of(dataset, rows):
    chosen = dataset.select(np.asarray(rows))
    number = np.arange(len(rows), dtype=np.float64)
    hard = np.array([float(str(i)[1:]) for i in chosen.ids])
    return DifficultyTable(chosen.ids, chosen.labels, hard, number, chosen.labels, number)


def bytes_of(run):
    return (run / "model.safetensors").read_bytes()


def test_train_learns_and_predict_agrees_with_the_test_file(tmp_path):
    test = vectors(20, first=100)
    train(vectors(200), SETTINGS, out=tmp_path / "r", test=test, validation=test)
    stored = read_predictions(tmp_path / "r" / "predictions" / "test.parquet")
    again = predict(tmp_path / "r", replace(test, labels=None))
    assert again.labels is None
    torch.testing.assert_close(again.logits, stored.logits)
    assert (again.logits.argmax(1).numpy() == test.labels).mean() >= 0.85
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert "validation_accuracy" in lines[0]


def test_resume_ends_in_the_same_bytes_and_leaves_the_seed_alone(tmp_path):
    def stop(progress):
        if progress.epoch_done and progress.epoch == 2:
            raise KeyboardInterrupt

    before = torch.get_rng_state()
    train(vectors(), SETTINGS, out=tmp_path / "whole")
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(KeyboardInterrupt):
        train(vectors(), SETTINGS, out=tmp_path / "parts", progress=stop, checkpoint_seconds=0.0)
    checkpoint = tmp_path / "parts" / "checkpoint" / "last.pt"
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "lines": [{**line, "seconds": 100.0} for line in state["lines"]]}, checkpoint)
    seen = []
    train(vectors(), SETTINGS, out=tmp_path / "parts", resume=True, progress=seen.append)
    assert json.loads((tmp_path / "parts" / "environment.json").read_text())["seconds"] > 200  # of both parts
    assert [progress.epoch for progress in seen if progress.epoch_done] == [3, 4]
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    train(vectors(), SETTINGS, out=tmp_path / "parts", resume=True, progress=lambda *_: pytest.fail("trained again"))


def test_resume_with_other_settings_names_them(tmp_path):
    train(vectors(), SETTINGS, out=tmp_path / "r")
    with pytest.raises(ResumeError, match="seed was 0, now 1"):
        train(vectors(), replace(SETTINGS, seed=1), out=tmp_path / "r", resume=True)
    with pytest.raises(ResumeError, match="data num_samples was 41, now 40"):
        train(vectors(40), SETTINGS, out=tmp_path / "r", resume=True)
    with pytest.raises(InputError, match="Use --resume"):
        train(vectors(), SETTINGS, out=tmp_path / "r")


def test_difficulty_is_joined_by_id_not_by_position(tmp_path):
    data, settings = vectors(), replace(SETTINGS, loss="difficulty-aware")
    for name, rows in (("forward", range(41)), ("backward", range(40, -1, -1))):
        train(data, settings, out=tmp_path / name, difficulty=table_of(data, list(rows)))
    assert bytes_of(tmp_path / "forward") == bytes_of(tmp_path / "backward")
    with pytest.raises(IdMismatchError, match="'s40'"):
        train(data, settings, out=tmp_path / "x", difficulty=table_of(data, range(40)))
    flipped = replace(table_of(data, range(41)), labels=1 - data.labels)
    with pytest.raises(InputError, match="41 of 41 differ: first 's0', 's1', 's2'"):
        train(data, settings, out=tmp_path / "x", difficulty=flipped)
    with pytest.raises(InputError, match="diffident score"):
        train(data, settings, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_wrong_data(tmp_path):
    with pytest.raises(InputError, match="must have labels"):
        train(replace(vectors(), labels=None), SETTINGS, out=tmp_path / "r")
    other = replace(vectors(), labels=np.full(41, 2), label_names=("a", "b", "bb"))
    words = "`labels` of toy must be classes of the training data; got 'bb' at 's0'. Did you mean `b`?"
    with pytest.raises(InputError, match=re.escape(words)):
        train(vectors(), SETTINGS, out=tmp_path / "r", test=other)


def test_held_out_classes_are_joined_by_name(tmp_path):
    data = vectors()
    turned = replace(vectors(first=100, names=("b", "a")), labels=1 - vectors(first=100).labels)
    one = replace(vectors(first=200, names=("b",)), labels=np.zeros(41, dtype=np.int64))
    run = train(data, SETTINGS, out=tmp_path / "r", validation=one, test=turned)
    written = read_predictions(run.predictions("test"))
    assert written.labels.tolist() == vectors(first=100).labels.tolist()
    assert read_predictions(run.predictions("validation")).labels.tolist() == [1] * 41
    for given, labels in ((turned, written.labels.tolist()), (one, [1] * 41)):
        found = predict(run.path, given)
        assert (found.labels.tolist(), found.label_names) == (labels, ("a", "b"))
    assert train(data, SETTINGS, out=tmp_path / "r", validation=one, test=turned, resume=True).finished


def test_non_finite_loss_names_the_step(tmp_path):
    settings = replace(SETTINGS, optimizer="sgd", learning_rate=1e30, warmup=0.0)
    with pytest.raises(NonFiniteLossError, match=r"at epoch 1, step \d"):
        train(vectors(), settings, out=tmp_path / "r")


def test_crop_and_flip_keeps_shape_and_pixels():
    images = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(200, 1, 8, 8)
    out = CropAndFlip.draw(200, torch.Generator().manual_seed(0)).apply(images)
    assert out.shape == images.shape
    plain = sum(torch.equal(a, images[0]) for a in out)
    flipped = sum(torch.equal(a, images[0].flip(-1)) for a in out)
    assert 0 < plain < 30
    assert 0 < flipped < 30


@pytest.mark.parametrize("checkpoint_seconds", [0.0, pytest.param(3600.0, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_an_epoch_it_resumes_to_the_same_bytes(checkpoint_seconds, tmp_path, monkeypatch):
    (tmp_path / "victim.py").write_text(VICTIM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "victim", raising=False)
    command = [sys.executable, str(tmp_path / "victim.py"), str(tmp_path / "parts"), str(checkpoint_seconds)]
    killed_at = {"KILL_AT": "10", "OMP_NUM_THREADS": str(torch.get_num_threads())}  # 4 steps an epoch: in the third
    assert subprocess.run(command, env=os.environ | killed_at, timeout=200).returncode == -signal.SIGKILL
    lines = (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert (tmp_path / "parts/checkpoint/last.pt").exists() == (checkpoint_seconds == 0)
    victim = importlib.import_module("victim")
    victim.run(tmp_path / "parts", resume=True)
    victim.run(tmp_path / "whole")
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    one, other = (sorted((tmp_path / name / "dynamics.parquet").iterdir()) for name in ("parts", "whole"))
    assert [(file.name, file.read_bytes()) for file in one] == [(file.name, file.read_bytes()) for file in other]
    assert len((tmp_path / "parts/metrics.jsonl").read_text().splitlines()) == 4


def test_a_failed_run_leaves_its_folder_to_the_next_try(tmp_path):
    diverging = replace(SETTINGS, optimizer="sgd", learning_rate=1e30, warmup=0.0)
    for settings, error in (
        (diverging, NonFiniteLossError),
        (replace(SETTINGS, model="python:builtins:str"), InputError),
    ):
        with pytest.raises(error):
            train(vectors(), settings, out=tmp_path / "r", checkpoint_seconds=0.0)
        assert not (tmp_path / "r").exists()
    train(vectors(), SETTINGS, out=tmp_path / "r")


def test_failing_late_keeps_the_checkpoint(tmp_path):
    def fail(progress):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        train(vectors(), SETTINGS, out=tmp_path / "r", progress=fail, checkpoint_seconds=0.0)
    assert (tmp_path / "r/checkpoint/last.pt").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_damaged_checkpoint_is_named(content, tmp_path):
    train(vectors(), SETTINGS, out=tmp_path / "r")
    (tmp_path / "r/model.safetensors").unlink()
    file = tmp_path / "r/checkpoint/last.pt"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ResumeError) as caught:
        train(vectors(), SETTINGS, out=tmp_path / "r", resume=True)
    assert str(caught.value).startswith(f"`out` must hold a whole checkpoint; {file}: ")
    assert str(caught.value).endswith(". Use another --out.")


def test_predict_on_a_named_device(tmp_path):
    train(vectors(), SETTINGS, out=tmp_path / "r")
    assert predict(tmp_path / "r", vectors(), device="cpu").logits.shape == (41, 2)
    with pytest.raises(InputError, match=r"`device` must be a known name; got 'cup'\. Did you mean `cpu`"):
        predict(tmp_path / "r", vectors(), device="cup")


@pytest.mark.parametrize("validation", [True, False])
def test_a_last_step_that_diverges_is_noticed(validation, tmp_path):
    settings = replace(SETTINGS, epochs=1, learning_rate=1e38, batch_size=32, warmup=0.0, schedule="constant")
    held = vectors(8) if validation else None
    with pytest.raises(NonFiniteLossError, match="at epoch 1, step 1"):
        train(vectors(32), settings, out=tmp_path / "r", validation=held)
    assert not (tmp_path / "r").exists()


def test_the_csv_log_takes_validation_data_that_come_later(tmp_path):
    settings = replace(SETTINGS, epochs=2, loggers=("csv",))
    with pytest.raises(KeyboardInterrupt):
        train(vectors(), settings, out=tmp_path / "r", progress=_stop_after_an_epoch, checkpoint_seconds=0.0)
    train(vectors(), settings, out=tmp_path / "r", validation=vectors(8), resume=True)
    assert "validation_loss" in (tmp_path / "r" / "metrics.csv").read_text().splitlines()[0]


def _stop_after_an_epoch(progress):
    if progress.epoch_done:
        raise KeyboardInterrupt
