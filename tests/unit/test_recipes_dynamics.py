"""The recipes: difficulty that another training shows, which comes first."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffident import train
from diffident.cli import main as diffident
from diffident.errors import InputError
from diffident.settings import load_settings
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.dynamics import read_dynamics
from diffident.storage.runs import open_run
from diffident.training import workflow
from experiments import runs
from experiments.linking import dynamics_settings
from experiments.materials import changed, open_split, rearranged
from experiments.reading import read_recipe
from experiments.recipe import DataChange, DifficultySpec
from run import main

POINT = "difficulty-aware@measure=training-dynamics"
SMALL = """
seeds = 2
num_resamples = 20
[data]
train = "digits:train[:200]"
validation = "digits:validation"
test = "digits:test"
[training]
model = "mlp"
epochs = 3
device = "cpu"
[methods.cross-entropy]
loss = "cross-entropy"
dropout = 0.1
[methods.difficulty-aware]
loss = "difficulty-aware"
others = 0.5
width = 32
[methods.noisy]
like = "difficulty-aware"
difficulty = { method = "training-dynamics", statistic = "el2n", shuffle = true }
data = { label_noise = 0.3 }
[methods.tuned]
loss = "difficulty-aware"
difficulty = { method = "training-dynamics", statistic = "forgetting" }
tune = { doubt = [0.1, 0.2, 0.3] }
[sweeps.measure]
vary = "difficulty.method"
values = ["training-dynamics"]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL)
    return path


def run_small(file, out, *more):
    names = ["--methods", "noisy", "tuned", "measure"]
    return main([str(file), "--data", str(file.parent), "--out", str(out), *names, *more])


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert run_small(file, out) == 0
    return out


def data_of(split):
    return open_split(Path(), f"digits:{split}")


def scored(run, out, **options):
    """What `diffident score` makes of a run."""
    given = [f"{key}={value}" for key, value in options.items()]
    command = ["score", str(run), "--method", "training-dynamics", "--out", str(out)]
    assert diffident([*command, *(["--set", *given] if given else [])]) == 0
    return read_difficulty_table(out)


def trained(dataset, out, loss, seed, difficulty=None, **options):
    """A run of the library, made without the recipe, but with one thread, as it has: bits depend on their number."""
    options = {"model": "mlp", "epochs": 3, "width": 32, "device": "cpu", **options}
    settings = load_settings(loss=loss, seed=seed, **options)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(dataset, settings, out=out, difficulty=difficulty, validation=data_of("validation"))
    finally:
        torch.set_num_threads(before)


# What a file may say


def test_the_training_before_has_the_loss_of_the_baseline_and_the_other_settings_of_the_method(file):
    plain = "methods.plain={loss='label-smoothing', smoothing=0.1, epochs=9, ema=0.3}"
    recipe = read_recipe(file, [plain, "methods.base={like='plain', dropout=0.1}", "baseline=base"])
    recipe.methods["x"] = replace(recipe.methods["tuned"], options={"preset": "paper", "epochs": 5, "alpha": 0.2})
    of_loss = {"doubt": 0.2, "mixup": 0.4, "mixup_until": 0.5, "curriculum": 0.5, "soft_targets": 0.5, "restart": True}
    settings = dynamics_settings(recipe, recipe.methods["x"], 7, {**of_loss, "batch_size": 64})
    assert settings == load_settings(
        model="mlp", loss="label-smoothing", smoothing=0.1, epochs=5, ema=0.3, dropout=0.1, batch_size=64,
        device="cpu", seed=7, dynamics=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            "methods.noisy.difficulty.statistic=aim",
            "`methods.noisy.difficulty.statistic` must be a known name; got 'aim'",
        ),
        ("sweeps.measure.values=['zero-shot']", "training-dynamics; got 'zero-shot', which needs label_features."),
        ("baseline=difficulty-aware", "`baseline` must be a single training without weights or `tune`"),
        ("baseline=tuned", "`baseline` must be a single training without weights or `tune`"),
        (
            "methods.cross-entropy={loss='focal', tune={gamma=[1, 2, 3]}}",
            "as training-dynamics are of it; got 'cross-ent",
        ),
        ("methods.cross-entropy={ensemble={of='tuned'}}", "Name another, or another `difficulty.method`."),
        ("methods.cross-entropy.loss=mixup", "`dynamics` must be false with mixup"),
    ],
)
def test_a_fault_is_named(file, entry, words):
    with pytest.raises(InputError) as error:
        read_recipe(file, [entry])
    assert words in str(error.value)
    assert str(error.value).count("`baseline`") <= 1


# A run


def test_the_run_is_what_the_library_makes_of_the_dynamics_of_a_run(finished, tmp_path):
    data = data_of("train[:200]")
    before = trained(data, tmp_path / "before", "cross-entropy", 1, dropout=0.1, dynamics=True)
    scored(before.path, tmp_path / "difficulty.parquet")
    own = trained(data, tmp_path / "own", "difficulty-aware", 1, tmp_path / "difficulty.parquet", others=0.5)
    found = open_run(finished / "runs" / POINT / "seed-1")
    assert found.data["weights"] == own.data["weights"]
    assert found.weights.read_bytes() == own.weights.read_bytes()
    assert (finished / "runs" / POINT / "seed-1-dynamics/model.safetensors").read_bytes() == before.weights.read_bytes()


def test_wrong_labels_are_what_the_training_before_saw_and_what_is_scored(finished, tmp_path):
    data = data_of("train[:200]")
    noisy = changed(data, DataChange(label_noise=0.3), seed=1)
    folder = finished / "runs" / "noisy" / "seed-1"
    np.testing.assert_array_equal(read_dynamics(f"{folder}-dynamics").labels, noisy.labels)
    assert (noisy.labels != data.labels).sum() == 60
    before = trained(noisy, tmp_path / "before", "cross-entropy", 1, dropout=0.1, dynamics=True)
    table = scored(before.path, tmp_path / "difficulty.parquet", statistic="el2n")
    digests = {}
    for name, one in {"plain": table, "shuffled": rearranged(table, DifficultySpec(shuffle=True), seed=1)}.items():
        digests[name] = trained(noisy, tmp_path / name, "difficulty-aware", 1, one, others=0.5).data["weights"]
    assert open_run(folder).data["weights"] == digests["shuffled"] != digests["plain"]


def test_a_trial_has_a_training_before_it_too(finished, tmp_path):
    trial = finished / "tuning" / "tuned" / "doubt-0.2"
    before = open_run(f"{trial}-dynamics")
    assert (before.settings.loss, before.settings.seed, before.settings.dynamics) == ("cross-entropy", 1000, True)
    scored(before.path, tmp_path / "difficulty.parquet", statistic="forgetting")
    own = trained(
        data_of("train[:200]"), tmp_path / "own", "difficulty-aware", 1000, tmp_path / "difficulty.parquet",
        doubt=0.2, width=0,
    )  # fmt: skip
    assert open_run(trial).weights.read_bytes() == own.weights.read_bytes()


def test_no_features_are_made_and_the_training_before_predicts_nothing(finished):
    assert not (finished / "features").exists()
    names = ("noisy", "tuned", POINT)
    befores = [finished / "runs" / name / f"seed-{seed}-dynamics" for name in names for seed in (0, 1)]
    assert sorted(finished.glob("runs/*/*-dynamics")) == sorted(befores)
    assert not list(finished.glob("*/*/*-dynamics/predictions"))
    results = json.loads((finished / "results.json").read_text())
    assert {name: len(method["runs"]) for name, method in results["methods"].items()} == dict.fromkeys(names, 2)


def test_a_second_run_trains_nothing_and_writes_the_same(file, finished, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    monkeypatch.setattr("diffident.training.workflow.launch", None)
    assert run_small(file, out) == 0
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_a_run_that_was_stopped_after_the_training_before_goes_on_from_there(file, finished, tmp_path, monkeypatch):
    launched, launch, whole = [], workflow.launch, runs.train

    def stop(dataset, settings, **others):
        if settings.loss == "difficulty-aware":
            raise KeyboardInterrupt
        return whole(dataset, settings, **others)

    def count(fabric, function, job, *others):
        launched.append((job.settings.loss, job.settings.seed))
        return launch(fabric, function, job, *others)

    monkeypatch.setattr(workflow, "launch", count)
    monkeypatch.setattr(runs, "train", stop)
    only = ["--methods", "measure"]
    assert run_small(file, tmp_path, *only) == 130
    monkeypatch.setattr(runs, "train", whole)
    assert run_small(file, tmp_path, *only) == 0
    losses = ("cross-entropy", "difficulty-aware")
    assert launched == [(loss, seed) for seed in (0, 1) for loss in losses]
    for seed in (0, 1):
        weights = Path("runs", POINT, f"seed-{seed}", "model.safetensors")
        assert (tmp_path / weights).read_bytes() == (finished / weights).read_bytes()


def test_another_training_before_the_same_run_is_an_error(file, finished, capsys):
    assert run_small(file, finished, "--set", "methods.cross-entropy.dropout=0.4") == 2
    said = capsys.readouterr().err
    assert f"{POINT}: in the training before it dropout was 0.1, now 0.4." in said
    assert run_small(file, finished, "--set", "methods.noisy.difficulty.statistic=aum") == 2
    assert "'statistic': 'el2n'" in capsys.readouterr().err
    assert run_small(file, finished, "--set", "training.epochs=4") == 2
    assert f"{POINT}: epochs was 3, now 4." in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_same(file, finished, tmp_path):
    assert run_small(file, tmp_path, "--jobs", "2", "--methods", "measure") == 0
    for weights in finished.glob(f"runs/{POINT}/*/model.safetensors"):
        assert (tmp_path / weights.relative_to(finished)).read_bytes() == weights.read_bytes()
