"""Two processes on the CPU, with gloo, against one."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed, nn

from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.errors import InputError, UnreadableSampleError
from diffident.settings import load_settings
from diffident.storage.dynamics import read_dynamics
from diffident.training import NonFiniteLossError, train
from diffident.training.processes import _GlobalBatchNorm, synced_batch_norm

SETTINGS = load_settings(
    model="cnn-small",
    epochs=2,
    batch_size=32,
    width=4,
    augment="crop-flip",
    device="cpu",
    accumulation=2,
    clip_norm=1.0,
    ema=0.9,
    dynamics=True,
)


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return np.array([[line[name] for name in ("train_loss", "validation_loss")] for line in lines_of(run)])


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    data, held_out = open_dataset("digits:train", limit=150), open_dataset("digits:validation")
    settings = replace(SETTINGS, accumulation=1)
    train(data, settings, out=tmp_path / "one", validation=held_out, test=held_out)
    before = dict(os.environ)
    train(data, replace(settings, devices=2), out=tmp_path / "two", validation=held_out, test=held_out)
    assert dict(os.environ) == before
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
    one, two = (read_dynamics(tmp_path / name) for name in ("one", "two"))
    assert one.ids.tolist() == two.ids.tolist()
    np.testing.assert_allclose(two.margins, one.margins, atol=1e-4)
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == sorted(
        file.name for file in (tmp_path / "one").iterdir()
    )


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bytes(tmp_path):
    data, settings = open_dataset("digits:train", limit=64), replace(SETTINGS, devices=2, dynamics=False)
    train(data, settings, out=tmp_path / "whole")
    with pytest.raises(Exception, match="stop here"):
        train(data, settings, out=tmp_path / "parts", progress=Stop(), checkpoint_seconds=0.0)
    train(data, settings, out=tmp_path / "parts", resume=True)
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


class Stop:
    """Fails after the first epoch, in the process that it is sent to."""

    def __call__(self, progress):
        if progress.epoch_done:
            raise RuntimeError("stop here")


class Broken:
    """Images of which one cannot be read."""

    def __call__(self, row):
        raise UnreadableSampleError(f"sample `{row}` must be a readable image; it is not. Replace it.")


@pytest.mark.slow
def test_errors_of_other_processes_keep_their_type(tmp_path):
    data = open_dataset("digits:train", limit=64)
    diverging = replace(SETTINGS, devices=2, optimizer="sgd", learning_rate=1e30, warmup=0.0, clip_norm=0.0, epochs=9)
    with pytest.raises(NonFiniteLossError, match=r"must be finite; got (nan|inf) at epoch \d"):
        train(data, diverging, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    with pytest.raises(InputError, match="`devices` must be 1 for what cannot be sent to another process"):
        train(data, replace(SETTINGS, devices=2), out=tmp_path / "r", progress=lambda progress: None)
    broken = Dataset("broken", "image", data.ids, None, Broken(), "f")
    with pytest.raises(UnreadableSampleError, match="sample `0` must be a readable image"):
        train(data, replace(SETTINGS, devices=2), out=tmp_path / "r", test=broken)


def test_batches_must_do_for_all_processes(tmp_path):
    with pytest.raises(InputError, match="`batch_size` must be at least 6 for 3 devices"):
        train(open_dataset("digits:train", limit=5), replace(SETTINGS, devices=3), out=tmp_path / "r")


@pytest.fixture
def alone(tmp_path):
    """A group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2, 2)])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_batch_norm_over_one_process_is_that_of_torch(shape, options, alone):
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    ours = synced_batch_norm(nn.Sequential(kind(3, **options)), torch.device("cpu")).double()
    theirs = nn.Sequential(kind(3, **options)).double()
    assert isinstance(ours[0], _GlobalBatchNorm)
    for step in range(3):
        inputs = [torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step)) + 5] * 2
        first, second = (values.clone().requires_grad_() for values in inputs)
        outputs = ours(first), theirs(second)
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.pow(3).sum().backward()
        torch.testing.assert_close(first.grad, second.grad, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(inputs[0]), theirs.eval()(inputs[1]))
