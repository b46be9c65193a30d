"""What a GPU computes is what the CPU computes; these tests are skipped where there is none."""

import json

import numpy as np
import pytest
import torch

from diffident import extract, open_encoder, score_features
from diffident.data.dataset import Dataset
from diffident.data.samples import ReadImageArray
from diffident.losses import LOSSES, DifficultyAwareLoss
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.training import predict, train

DEVICE = "cuda"
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")


def images(count=96, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = np.clip(generator.normal(60 + 60 * labels[:, None, None, None], 50, (count, 32, 32, 3)), 0, 255)
    ids = np.array([f"{seed}:{row}" for row in range(count)], dtype=object)
    return Dataset("images", "image", ids, labels, ReadImageArray(pixels.astype(np.uint8)), str(seed), ("a", "b", "c"))


def table_of(dataset):
    number = np.arange(len(dataset), dtype=np.float64)
    return DifficultyTable(dataset.ids, dataset.labels, number, number / number[-1], dataset.labels, 0 * number)


def lines_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_loss_trains(tmp_path, loss, precision):
    settings = load_settings(
        model="resnet18-32px",
        width=8,
        loss=loss,
        epochs=2,
        batch_size=32,
        augment="crop-flip",
        device=DEVICE,
        precision=precision,
        channels_last=True,
        dynamics=loss != "mixup",
    )
    data = images()
    run = train(data, settings, out=tmp_path / "run", difficulty=table_of(data), validation=images(48, seed=1))
    made = read_predictions(run.predictions("validation"))
    assert made.logits.isfinite().all()
    assert len(lines_of(run)) == 2
    torch.testing.assert_close(predict(run.path, images(48, seed=1)).logits, made.logits, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("loss", ["difficulty-aware", "crl", "regmixup"])
def test_losses_of_an_epoch_are_those_of_the_cpu(tmp_path, loss):
    data = images()
    curves = []
    for device in ("cpu", DEVICE):
        settings = load_settings(
            model="resnet18-32px", width=8, loss=loss, epochs=3, batch_size=16, augment="crop-flip", device=device
        )
        curves.append(lines_of(train(data, settings, out=tmp_path / device, difficulty=table_of(data))))
    for cpu, there in zip(*curves, strict=True):
        assert there["train_loss"] == pytest.approx(cpu["train_loss"], rel=0.05)
    assert curves[1][0]["train_loss"] == pytest.approx(curves[0][0]["train_loss"], rel=5e-3)


def test_a_resumed_run_goes_on(tmp_path):
    data = images()
    settings = load_settings(model="resnet18-32px", width=8, epochs=4, batch_size=32, device=DEVICE, ema=0.9)

    def stop(progress):
        if progress.epoch_done and progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, settings, out=tmp_path / "run", progress=stop, checkpoint_seconds=0.0)
    run = train(data, settings, out=tmp_path / "run", resume=True)
    whole = train(data, settings, out=tmp_path / "whole")
    for one, other in zip(lines_of(run), lines_of(whole), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-2)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_the_loss_under_autocast_and_compile(compiled, half):
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(64, 5, generator=generator), torch.arange(64) % 12
    weights = 2 * torch.rand(64, generator=generator)
    layer = torch.nn.Linear(5, 12)
    expected = DifficultyAwareLoss()(layer(inputs), labels, weights)
    wanted = torch.autograd.grad(expected, layer.weight)[0]
    layer, criterion = layer.to(DEVICE), DifficultyAwareLoss()
    step = torch.compile(lambda x: criterion(layer(x), labels.to(DEVICE), weights.to(DEVICE))) if compiled else None
    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
        if step is None:
            loss = criterion(layer(inputs.to(DEVICE)), labels.to(DEVICE), weights.to(DEVICE))
        else:
            loss = step(inputs.to(DEVICE))
    loss.backward()
    torch.testing.assert_close(loss.detach().cpu(), expected.detach(), rtol=1e-2 if half else 1e-4, atol=1e-4)
    torch.testing.assert_close(
        layer.weight.grad.cpu(), wanted, rtol=5e-2 if half else 1e-3, atol=5e-3 if half else 1e-5
    )


@pytest.mark.parametrize("method", ["rmd", "squared-distance", "posterior", "kmeans", "gmm", "self-confidence"])
def test_scores_are_those_of_the_cpu(method):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 4
    values = torch.randn(600, 12, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 12)
    given = labels.clone()
    given[::20] = (given[::20] + 1) % 4
    ids = np.arange(600).astype(str).astype(object)
    cpu, there = (
        score_features(lambda v=v: iter(v.split(250)), ids, given.numpy(), num_classes=4, method=method)
        for v in (values, values.to(DEVICE))
    )
    np.testing.assert_allclose(there.difficulty, cpu.difficulty, rtol=1e-3, atol=1e-2)
    assert (there.nearest_labels == cpu.nearest_labels).mean() > 0.995


def test_features_are_those_of_the_cpu(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    timm.models.save_for_hf(timm.create_model("resnet10t"), tmp_path / "model")
    values = []
    for device in ("cpu", DEVICE):
        name = f"timm:local-dir:{tmp_path / 'model'}"
        encoder = open_encoder(name, device=device, precision="float32", image_size=64)
        values.append(extract(images(40), encoder, out=tmp_path / device).load().values)
    torch.testing.assert_close(values[1], values[0], rtol=2e-2, atol=2e-3)
