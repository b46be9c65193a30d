"""What the settings of the loop do, each against what it should equal; and that all of them resume bit-exactly."""

import csv
import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.progress import Recorded, rises_to
from torch import nn

from diffident.data.dataset import Dataset
from diffident.errors import InputError, MissingDependencyError, UnreadableSampleError
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import open_run
from diffident.training import predict, train
from diffident.training.averaging import BestWeights, WeightAverage
from diffident.training.optimization import batches, learning_rate, parts_of, steps_per_epoch

SETTINGS = load_settings(model="mlp", epochs=4, batch_size=16, width=16, device="cpu", learning_rate=0.01, dropout=0.0)


def vectors(count=70, first=0):
    values = np.random.default_rng(first).normal(size=(count, 3)).astype(np.float32)
    ids = np.array([f"s{first + row}" for row in range(count)], dtype=object)
    return Dataset("toy", "vector", ids, (values[:, 0] > 0).astype(np.int64), values.__getitem__, "f")


def images(count=40, broken=None):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    ids = np.array([f"i{row}" for row in range(count)], dtype=object)

    def read(row):
        if row == broken:
            raise UnreadableSampleError(f"sample `i{row}` must be a readable image; it is not. Replace it.")
        return Image.fromarray(pixels[row])

    return Dataset("photos", "image", ids, np.arange(count) % 2, read, "f")


def bytes_of(run):
    return (run / "model.safetensors").read_bytes()


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def curve(run, *names):
    return np.array([[line[name] for name in names or ("train_loss",)] for line in lines_of(run)])


def stop_after(epochs):
    def stop(progress):
        if progress.epoch_done and progress.epoch == epochs:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"patience": 3, "learning_rate": 0.3},
        {"ema": 0.9, "patience": 2, "accumulation": 3, "clip_norm": 0.1, "schedule": "one-cycle", "optimizer": "sgd"},
        {"schedule": "step", "milestones": (0.3, 0.6), "channels_last": True, "precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_a_resumed_run_ends_in_the_same_bytes(changes, tmp_path):
    settings, held_out = replace(SETTINGS, **changes), vectors(30, first=100)
    train(vectors(), settings, out=tmp_path / "whole", validation=held_out)
    for epochs in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(
                vectors(),
                settings,
                out=tmp_path / "parts",
                validation=held_out,
                resume=epochs > 1,
                progress=stop_after(epochs),
                checkpoint_seconds=0.0,
            )
    train(vectors(), settings, out=tmp_path / "parts", validation=held_out, resume=True)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    np.testing.assert_array_equal(
        curve(tmp_path / "parts", "train_loss", "validation_loss"),
        curve(tmp_path / "whole", "train_loss", "validation_loss"),
    )


def test_accumulated_parts_make_the_same_step(tmp_path):
    for parts in (1, 3):
        train(vectors(), replace(SETTINGS, accumulation=parts), out=tmp_path / str(parts))
    np.testing.assert_allclose(curve(tmp_path / "3"), curve(tmp_path / "1"), rtol=1e-5)
    assert bytes_of(tmp_path / "3") != bytes_of(tmp_path / "1")


def test_augmentation_does_not_depend_on_the_parts(tmp_path):
    settings = load_settings(
        model="mlp", epochs=2, batch_size=16, width=8, augment="crop-flip", device="cpu", dropout=0.0
    )
    for parts in (1, 2):
        train(images(), replace(settings, accumulation=parts), out=tmp_path / str(parts))
    np.testing.assert_allclose(curve(tmp_path / "2"), curve(tmp_path / "1"), rtol=1e-5)
    train(images(), replace(settings, augment="none"), out=tmp_path / "plain")
    assert abs(curve(tmp_path / "plain") - curve(tmp_path / "1")).max() > 1e-3


class OneWeight(nn.Module):
    """Logits (0, w) for every sample: the gradient for w is 0.5 or -0.5 at w = 0."""

    def __init__(self, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        return torch.cat([self.weight * 0, self.weight]).expand(len(inputs), 2)


def one_weight(out, labels, **changes):
    """The weight after training on one batch an epoch by plain gradient descent with rate 1."""
    data = replace(vectors(len(labels)), labels=np.array(labels), label_names=("a", "b"))
    options = {"optimizer": "sgd", "learning_rate": 1.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
    settings = load_settings(model=f"python:{__name__}:OneWeight", device="cpu", **{**options, "epochs": 1, **changes})
    train(data, settings, out=out, validation=data if settings.patience else None)
    state = torch.load(out / "checkpoint" / "last.pt", weights_only=True)
    stored = predict(out, data).logits[0, 1]
    return float(stored), state


def test_gradients_are_clipped_to_the_norm(tmp_path):
    # SGD's first Nesterov step is 1 + 0.9 times the gradient.
    assert one_weight(tmp_path / "plain", [1, 1])[0] == pytest.approx(0.5 * 1.9)
    assert one_weight(tmp_path / "clipped", [1, 1], clip_norm=0.1)[0] == pytest.approx(0.1 * 1.9, rel=1e-4)
    assert one_weight(tmp_path / "loose", [1, 1], clip_norm=0.6)[0] == pytest.approx(0.5 * 1.9)


def test_the_average_of_the_weights_is_kept(tmp_path):
    averaged, state = one_weight(tmp_path / "run", [1, 1], ema=0.9, epochs=3)
    values = [float(torch.sigmoid(torch.tensor(0.0)))]
    weight, velocity, average = 0.0, 0.0, 0.0
    for step in (1, 2, 3):
        gradient = -1 / (1 + math.exp(weight))
        velocity = 0.9 * velocity + gradient if step > 1 else gradient
        weight -= gradient + 0.9 * velocity
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
        values.append(average)
    assert float(state["model"]["1.weight"]) == pytest.approx(weight, rel=1e-5)
    assert averaged == pytest.approx(average, rel=1e-5)


def test_an_average_takes_in_buffers_and_gives_the_weights_back():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.9)
    model(torch.randn(8, 2) + 3)
    average.update()
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied(model):
        assert int(model.num_batches_tracked) == 1
        torch.testing.assert_close(model.running_mean, trained["running_mean"] * (1 - 2 / 11))
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_training_ends_when_the_validation_loss_no_longer_falls(tmp_path):
    train(
        vectors(12),
        replace(SETTINGS, epochs=200, patience=3, learning_rate=0.05),
        out=tmp_path / "run",
        validation=vectors(60, first=1000),
    )
    losses = curve(tmp_path / "run", "validation_loss")[:, 0]
    assert len(losses) < 200
    assert losses.argmin() == len(losses) - 1 - 3
    assert curve(tmp_path / "run", "best")[:, 0].nonzero()[0][-1] == losses.argmin()
    kept = read_predictions(tmp_path / "run" / "predictions" / "validation.parquet")
    assert float(nn.functional.cross_entropy(kept.logits, kept.labels)) == pytest.approx(losses.min(), rel=1e-5)
    with pytest.raises(InputError, match="`validation` must be given with patience=3"):
        train(vectors(), replace(SETTINGS, patience=3), out=tmp_path / "other")


def test_a_loss_that_is_no_number_is_no_better():
    model, best = nn.Linear(1, 1), BestWeights(2)
    assert [best.update(loss, model) for loss in (math.nan, 2.0, math.nan)] == [True, True, False]
    assert not best.exhausted
    best.update(2.0, model)
    assert best.exhausted


@pytest.mark.parametrize(("schedule", "total"), [("one-cycle", 40), ("one-cycle", 7)])
def test_one_cycle_is_that_of_torch(schedule, total):
    settings = replace(SETTINGS, schedule=schedule, warmup=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total, pct_start=0.3)
    for step in range(total):
        assert learning_rate(settings, step, total) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        if step + 1 < total:
            theirs.step()


def test_steps_of_the_rate():
    settings = replace(SETTINGS, schedule="step", warmup=0.2, step_factor=0.5, learning_rate=1.0)
    rates = [learning_rate(settings, step, 10) for step in range(10)]
    assert rates == [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert load_settings(model="mlp", schedule="one-cycle").warmup == 0.3
    assert load_settings(model="mlp").warmup == 0.05


@pytest.mark.parametrize(
    ("count", "size", "least", "sizes"), [(9, 4, 2, [4, 5]), (10, 4, 2, [4, 4, 2]), (10, 4, 4, [4, 6])]
)
def test_a_last_batch_that_is_too_small_joins_the_one_before(count, size, least, sizes):
    assert [len(rows) for rows in batches(count, size, torch.Generator(), least)] == sizes
    assert steps_per_epoch(count, size, least) == len(sizes)


def test_parts_share_a_batch_and_are_never_of_one_sample():
    settings = replace(SETTINGS, accumulation=4, devices=2)
    parts = [parts_of(11, settings, rank) for rank in (0, 1)]
    assert [part.tolist() for part in parts[0]] == [[0, 1], [2, 3], [4, 5]]
    assert [part.tolist() for part in parts[1]] == [[6, 7, 8], [9, 10]]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_same_bits_as_memory(workers, tmp_path):
    # With dropout, which shares its generator with whatever else draws from the global one.
    settings = load_settings(model="mlp", epochs=2, batch_size=16, width=4, augment="crop-flip", device="cpu")
    train(images(), replace(settings, loading="memory"), out=tmp_path / "memory", test=images(), validation=images())
    streamed = replace(settings, loading="workers", num_workers=workers)
    train(images(), streamed, out=tmp_path / "workers", test=images(), validation=images())
    assert bytes_of(tmp_path / "workers") == bytes_of(tmp_path / "memory")
    stored = read_predictions(tmp_path / "memory" / "predictions" / "test.parquet")
    assert torch.equal(predict(tmp_path / "workers", images()).logits, stored.logits)


def test_an_image_that_a_worker_cannot_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("diffident.models.preprocessing._MOMENT_IMAGES", 2)  # so that no moment needs the broken one
    settings = load_settings(model="cnn-small", epochs=1, width=4, device="cpu", loading="workers", num_workers=1)
    with pytest.raises(
        UnreadableSampleError, match=r"^sample `i7` must be a readable image; it is not\. Replace it\.$"
    ):
        train(images(broken=7), settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_channels_last_and_compilation_change_no_more_than_rounding(tmp_path):
    settings = load_settings(model="cnn-small", epochs=2, batch_size=16, width=4, device="cpu")
    train(images(), settings, out=tmp_path / "plain")
    train(images(), replace(settings, channels_last=True), out=tmp_path / "last")
    np.testing.assert_allclose(curve(tmp_path / "last"), curve(tmp_path / "plain"), rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_run_resumes_and_predicts(tmp_path):
    settings = replace(SETTINGS, compile=True)
    train(vectors(), SETTINGS, out=tmp_path / "plain", test=vectors())
    train(vectors(), settings, out=tmp_path / "whole", test=vectors())
    with pytest.raises(KeyboardInterrupt):
        train(vectors(), settings, out=tmp_path / "parts", progress=stop_after(2), checkpoint_seconds=0.0)
    train(vectors(), settings, out=tmp_path / "parts", resume=True)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")
    np.testing.assert_allclose(curve(tmp_path / "whole"), curve(tmp_path / "plain"), rtol=1e-4)


def test_logs_hold_every_epoch_once(tmp_path):
    settings, run = replace(SETTINGS, loggers=("csv", "tensorboard")), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(vectors(), settings, out=run, progress=stop_after(3), checkpoint_seconds=3600.0)
    train(vectors(), settings, out=run, resume=True)
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["train_loss"]) for row in rows] == curve(run)[:, 0].tolist()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("train_loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4]
    np.testing.assert_allclose([event.value for event in scalars], curve(run)[:, 0], rtol=1e-6)


def test_a_missing_log_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"`loggers=wandb` must have wandb\. Run: pip install wandb\."):
        train(vectors(), replace(SETTINGS, loggers=("wandb",)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_has_loss_and_rate(tmp_path):
    seen = []
    train(vectors(), SETTINGS, out=tmp_path / "run", progress=seen.append)
    ends = [progress for progress in seen if progress.epoch_done]
    assert [progress.loss for progress in ends] == pytest.approx(curve(tmp_path / "run")[:, 0].tolist())
    assert [(p.epoch, p.step, p.steps, p.finished) for p in ends] == [(n, 5, 5, n == 4) for n in (1, 2, 3, 4)]
    assert all(progress.samples_per_second > 0 for progress in seen)


def test_a_run_can_go_on_with_other_workers_and_logs(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(vectors(), SETTINGS, out=tmp_path / "run", progress=stop_after(1), checkpoint_seconds=0.0)
    train(vectors(), replace(SETTINGS, num_workers=0, loggers=("csv",)), out=tmp_path / "run", resume=True)
    assert open_run(tmp_path / "run").finished


class Stand:
    """Stands in for a log's library: keeps what was called with which arguments."""

    def __init__(self, calls=None, name=""):
        self._calls, self._name = [] if calls is None else calls, name
        self.info = SimpleNamespace(run_id="run-7")

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args, **options):
            self._calls.append((name, args, options))
            return self

        return call


@pytest.mark.parametrize(
    ("library", "begins", "logs", "ends"),
    [("wandb", "init", "log", "finish"), ("mlflow", "start_run", "log_metrics", "end_run")],
)
def test_logs_of_other_libraries_go_on_with_their_run(library, begins, logs, ends, tmp_path, monkeypatch):
    stand = Stand()
    monkeypatch.setitem(sys.modules, library, stand)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    settings, run = replace(SETTINGS, loggers=(library,)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(vectors(), settings, out=run, progress=stop_after(2), checkpoint_seconds=0.0)
    train(vectors(), settings, out=run, resume=True)
    names = [name for name, _, _ in stand._calls]
    assert names.count(begins) == names.count(ends) == 2
    logged = [(args[0]["train_loss"], options["step"]) for name, args, options in stand._calls if name == logs]
    assert logged == [(loss, epoch) for epoch, loss in enumerate(curve(run)[:, 0].tolist(), start=1)]
    first, again = (options for name, _, options in stand._calls if name == begins)
    assert first["id"] == again["id"] if library == "wandb" else again == {"run_id": "run-7"}


@pytest.mark.parametrize(("loading", "total"), [("memory", 2), ("workers", 1)])
def test_progress_of_predict_counts_samples_prepared_and_predicted(loading, total, tmp_path):
    data = images()
    settings = load_settings(model="cnn-small", width=4, epochs=1, device="cpu", loading=loading, num_workers=0)
    train(data, settings, out=tmp_path / "run")
    seen = Recorded()
    logits = predict(tmp_path / "run", data, progress=seen).logits
    assert rises_to(seen.calls, total * len(data))
    assert torch.equal(logits, predict(tmp_path / "run", data).logits)
