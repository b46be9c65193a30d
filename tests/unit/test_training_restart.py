"""Beginning anew on mixtures of soft targets, where a network learns its labels by heart."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffident.cli.common import TrainingBar
from diffident.data.dataset import Dataset
from diffident.difficulties.targets import training_targets
from diffident.errors import InputError, ResumeError
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.training import loop, train
from diffident.training.optimization import epoch_seed, learning_rate, steps_per_epoch
from diffident.training.restart import must_restart, stage_of

COUNT, CLASSES, EPOCHS = 60, 3, 12
IDS = np.array([f"s{row}" for row in range(COUNT)], dtype=object)
HARD = np.random.default_rng(0).permutation(COUNT) / (COUNT - 1)
# Nothing in these pictures says what their labels are.
PIXELS = np.random.default_rng(1).integers(0, 256, (2 * COUNT, 8, 8, 3), dtype=np.uint8)
LABELS = np.random.default_rng(2).integers(0, CLASSES, 2 * COUNT)
PROBS = np.random.default_rng(3).dirichlet(np.ones(CLASSES), COUNT).astype(np.float32)
EVERY = np.tile(np.arange(CLASSES), (COUNT, 1))


def photos(first=0, ids=IDS):
    labels = LABELS[first : first + COUNT]
    return Dataset(
        f"photos{first}", "image", ids, labels, lambda row: Image.fromarray(PIXELS[first + row]), f"f{first}"
    )


TRAIN, HELD_OUT = photos(), photos(COUNT, IDS + "v")


def table(candidates=EVERY, probs=PROBS, distrust=None, likely=None):
    columns = IDS, LABELS[:COUNT], HARD, HARD, LABELS[:COUNT], HARD, {"method": "posterior"}, None
    return DifficultyTable(*columns, distrust, likely, candidates, probs)


def settings(**changes):
    options = {"model": "cnn-small", "loss": "difficulty-aware", "epochs": EPOCHS, "batch_size": 16, "width": 16}
    return load_settings(**{**options, "learning_rate": 0.02, "device": "cpu", "image_size": 8, **changes})


def trained(out, *, difficulty=None, validation=HELD_OUT, dataset=TRAIN, changes=None, **options):
    difficulty = table() if difficulty is None else difficulty
    train(dataset, settings(**(changes or {})), out=out, difficulty=difficulty, validation=validation, **options)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return lines, (out / "model.safetensors").read_bytes()


def line(train_accuracy, validation_accuracy, **more):
    return {"train_accuracy": train_accuracy, "validation_accuracy": validation_accuracy, **more}


def restarts_at(lines):
    return [number for number, one in enumerate(lines, 1) if one.get("restarts")]


def test_it_begins_anew_when_training_is_far_above_the_best_validation_accuracy():
    run, even = settings(epochs=20), line(0.5, 0.45)
    assert not must_restart(run, [even, even, line(0.549, 0.45)], 1.0)
    assert must_restart(run, [even, even, line(0.551, 0.45)], 1.0)
    assert not must_restart(run, [line(0.5, 0.3), even, line(0.549, 0.2)], 1.0)  # the best so far counts


def test_it_begins_anew_neither_at_once_nor_late_nor_twice():
    by_heart = line(0.9, 0.4)
    for epochs, first, last in ((7, 1, 0), (8, 3, 3), (20, 3, 10), (50, 5, 25)):
        run = settings(epochs=epochs)
        found = [number for number in range(1, epochs + 1) if must_restart(run, [by_heart] * number, 1.0)]
        assert found == list(range(first, last + 1))
    assert not must_restart(settings(epochs=20), [line(0.9, 0.4, restarts=True)] + [by_heart] * 5, 1.0)
    held_back, all_shown = ([by_heart] * 4 + [line(0.9, 0.4, share_shown=share)] for share in (0.9, 1.0))
    assert not must_restart(settings(epochs=20), held_back, 1.0)
    assert must_restart(settings(epochs=20), all_shown, 1.0)


def test_wrong_labels_that_are_not_learnt_are_allowed_for():
    run, lines = settings(epochs=10), [line(0.8, 0.5)] * 3
    assert must_restart(run, lines, 0.76)
    assert not must_restart(run, lines, 0.74)
    distrust, likely = np.zeros(COUNT), LABELS[:COUNT].copy()
    distrust[:6], likely[:3] = 1.0, (likely[:3] + 1) % CLASSES
    targets = training_targets(table(distrust=distrust, likely=likely), relabel=True)
    assert targets.changed.sum() == 3
    assert targets.believed == pytest.approx(1 - 6 / COUNT)
    assert training_targets(table()).believed == 1


def test_the_epochs_after_it_are_a_training_of_their_own():
    run = settings(epochs=20, curriculum=0.5)
    before = [line(0.5, 0.5)] * 3
    assert stage_of(run, before).settings == run
    assert stage_of(run, before).lines == before
    lines = [*before, line(0.9, 0.5, restarts=True), line(0.1, 0.2)]
    after = stage_of(run, lines)
    assert after.lines == lines[4:]
    expected = {
        "epochs": 16,
        "mixup": 1.0,
        "mixup_until": 0.8,
        "soft_targets": 0.5,
        "restart": False,
        "curriculum": 0.0,
    }
    assert after.settings == replace(run, **expected)


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9}, {"patience": 9, "optimizer": "sgd", "learning_rate": 0.1}, {"augment": "crop-flip"}],
)
def test_after_it_a_run_is_the_same_as_one_with_mixtures_of_soft_targets(tmp_path, monkeypatch, changes):
    lines, weights = trained(tmp_path / "a", changes=changes)
    (last_before,) = restarts_at(lines)
    assert 3 <= last_before <= EPOCHS / 2
    assert len(lines) == EPOCHS
    assert (lines[0].get("share_shown", 1) < 1) == ("augment" in changes and "patience" not in changes)
    assert lines[last_before - 1]["train_accuracy"] > max(one["validation_accuracy"] for one in lines[:last_before])
    monkeypatch.setattr(loop, "epoch_seed", lambda seed, epoch, rank=0: epoch_seed(seed, epoch + last_before, rank))
    mixed = {"mixup": 1.0, "mixup_until": 0.8, "soft_targets": 0.5, "epochs": EPOCHS - last_before}
    alone, expected = trained(tmp_path / "b", changes={**changes, **mixed})
    assert weights == expected
    volatile = {"epoch", "seconds", "share_shown"}
    for one, other in zip(lines[last_before:], alone, strict=True):
        assert {key: one[key] for key in one if key not in volatile} == {
            key: other[key] for key in other if key not in volatile
        }
    steps = steps_per_epoch(COUNT, 16)
    rates = [
        learning_rate(settings(**changes), (number + 1) * steps - 1, len(alone) * steps) for number in range(len(alone))
    ]
    assert [one["learning_rate"] for one in lines[last_before:]] == pytest.approx(rates)


def test_until_it_a_run_is_the_same_as_one_that_goes_on(tmp_path):
    lines, weights = trained(tmp_path / "a")
    (last_before,) = restarts_at(lines)
    going_on, other = trained(tmp_path / "b", changes={"restart": False})
    assert not restarts_at(going_on)
    assert weights != other
    losses = [[one["train_loss"] for one in run] for run in (lines, going_on)]
    assert losses[0][:last_before] == losses[1][:last_before]
    assert losses[0][last_before] != losses[1][last_before]


@pytest.mark.parametrize(
    ("changes", "distance"), [({}, -1), ({}, 0), ({}, 1), ({"ema": 0.9}, 0), ({"patience": 9, "optimizer": "sgd"}, 0)]
)
def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path, changes, distance):
    lines, weights = trained(tmp_path / "a", changes=changes)
    (last_before,) = restarts_at(lines)

    def stop(progress):
        if progress.epoch_done and progress.epoch == last_before + distance:
            assert progress.restarts == (distance == 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", changes=changes, progress=stop, checkpoint_seconds=0.0)
    resumed, found = trained(tmp_path / "b", changes=changes, resume=True)
    assert found == weights
    assert [{**one, "seconds": 0} for one in resumed] == [{**one, "seconds": 0} for one in lines]


def test_early_stopping_counts_from_the_new_beginning(tmp_path):
    lines, _ = trained(tmp_path / "a", changes={"patience": 6, "epochs": 30})
    (last_before,) = restarts_at(lines)
    mixing = round(0.8 * (30 - last_before))
    assert len(lines) > last_before + mixing
    assert not any("best" in one for one in lines[last_before : last_before + mixing])
    kept = [one["validation_loss"] for one in lines[last_before + mixing :] if one["best"]]
    assert kept[-1] == min(one["validation_loss"] for one in lines[last_before + mixing :])


def test_it_takes_probabilities_and_validation_data(tmp_path):
    without = replace(table(), candidates=None, candidate_probs=None)
    lines, weights = trained(tmp_path / "a", difficulty=without)
    going_on = trained(tmp_path / "b", changes={"restart": False})[1]
    assert (len(lines), restarts_at(lines), weights) == (EPOCHS, [], going_on)
    lines, _ = trained(tmp_path / "c", validation=None)
    assert (len(lines), restarts_at(lines)) == (EPOCHS, [])
    # Nothing is learnt of the probabilities there, so other ones are the same run.
    others = table(probs=PROBS[::-1].copy())
    trained(tmp_path / "c", validation=None, difficulty=others, resume=True)
    trained(tmp_path / "d")
    with pytest.raises(ResumeError, match="data weights was"):
        trained(tmp_path / "d", difficulty=others, resume=True)
    with pytest.raises(ResumeError, match="data weights was"):
        trained(tmp_path / "d", changes={"restart": False}, resume=True)
    trained(tmp_path / "a", difficulty=without, changes={"restart": False}, resume=True)  # as it would have been
    asked_for = {"restart": True}
    with pytest.raises(InputError, match="`validation` must be given with restart=true; got None"):
        trained(tmp_path / "e", validation=None, changes=asked_for)
    with pytest.raises(InputError, match="probabilities of the classes with restart=true; got a table of 'posterior'"):
        trained(tmp_path / "e", difficulty=without, changes=asked_for)
    beyond = table(np.full((COUNT, 1), 7), np.ones((COUNT, 1)))
    assert trained(tmp_path / "g", difficulty=beyond)[1] == going_on
    with pytest.raises(InputError, match=r"a probability of class 7 .* or set restart to false"):
        trained(tmp_path / "f", difficulty=beyond, changes=asked_for)


def test_it_is_the_default_where_doubt_is_learnt_from_images():
    assert settings().may_restart
    assert settings(model="timm:resnet18", pretrained=False).may_restart
    assert settings(patience=3).may_restart
    for changes in (
        {"restart": False},
        {"loss": "cross-entropy"},
        {"loss": "difficulty-smoothing"},
        {"doubt": 0.3},
        {"alpha": 0.1},
        {"model": "mlp"},
        {"model": "ngrams"},
        {"model": "timm:resnet18"},
        {"model": "python:mine:net"},
        {"mixup": 1.0},
        {"soft_targets": 0.5},
        {"dynamics": True},
    ):
        assert not settings(**changes).may_restart, changes


def test_other_models_and_losses_begin_anew_where_it_is_asked_for(tmp_path):
    asked_for = {"restart": True, "loss": "difficulty-smoothing"}
    lines, weights = trained(tmp_path / "a", changes=asked_for)
    assert len(restarts_at(lines)) == 1
    assert weights != trained(tmp_path / "b", changes={**asked_for, "restart": False})[1]
    with pytest.raises(ResumeError, match="data validation was"):
        trained(tmp_path / "a", changes=asked_for, validation=photos(COUNT, IDS + "w"), resume=True)
    with pytest.raises(InputError, match=r"as restart is learnt from it; 60 samples .* or set restart to false"):
        trained(tmp_path / "c", changes=asked_for, validation=TRAIN)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": "focal"}, "`restart` must be false with the loss 'focal', which is given no difficulty; got true."),
        ({"model": "ngrams"}, "`restart` must be false where inputs are texts, which cannot be mixed; got true."),
        ({"mixup": 0.4, "dynamics": True}, "`restart` must be false beside mixup, dynamics; got true."),
        ({"soft_targets": 0.5}, "`restart` must be false beside soft_targets; got true."),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, told):
    with pytest.raises(InputError) as caught:
        settings(restart=True, **changes)
    assert told in str(caught.value)


def test_texts_are_refused(tmp_path):
    texts = Dataset("texts", "text", IDS, LABELS[:COUNT], lambda row: f"word{row}", "t")
    with pytest.raises(InputError, match="`restart` must be false where inputs are texts"):
        trained(tmp_path / "a", dataset=texts, changes={"restart": True, "model": "python:mine:net"})


def test_people_are_told(tmp_path, capsys):
    trained(tmp_path / "a", progress=TrainingBar())
    told = capsys.readouterr().err.split("\n")
    assert [line for line in told if "learns the labels by heart: it begins anew after epoch" in line]


def test_labels_that_are_not_believed_put_it_off(tmp_path):
    distrust, likely = np.zeros(COUNT), LABELS[:COUNT].copy()
    distrust[::3], likely[::3] = 1.0, (likely[::3] + 1) % CLASSES
    run = settings(epochs=24)
    lines, _ = trained(
        tmp_path / "a", difficulty=table(distrust=distrust, likely=likely), changes={"epochs": 24, "restart": False}
    )
    put_off, at_once = (
        [number for number in range(1, 25) if must_restart(run, lines[:number], believed)][:1]
        for believed in (1 - 20 / COUNT, 1.0)
    )
    assert put_off != at_once != []
    found, _ = trained(tmp_path / "b", difficulty=table(distrust=distrust, likely=likely), changes={"epochs": 24})
    assert restarts_at(found) == put_off
