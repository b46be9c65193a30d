import json
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.test_training import SETTINGS, table_of, vectors

from diffident.cli import main
from diffident.errors import InputError, ResumeError
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.training.tuning import choose_alpha, hold_out, read_choice, train_with_chosen_alpha

SWEPT = replace(SETTINGS, loss="difficulty-aware", epochs=2)


def test_every_fifth_of_each_class_is_held_out():
    data = vectors(41)
    rest, held = hold_out(data, seed=0)
    assert sorted([*rest.ids, *held.ids]) == sorted(data.ids)
    assert np.bincount(held.labels).tolist() == [count // 5 for count in np.bincount(data.labels)]
    assert held.ids.tolist() != hold_out(data, seed=1)[1].ids.tolist()
    assert held.ids.tolist() == hold_out(data, seed=0)[1].ids.tolist()


def test_the_choice_is_the_trial_of_least_nll(tmp_path):
    data, held, seen = vectors(60), vectors(30, first=100), []
    options = {"difficulty": table_of(data, range(60)), "validation": held}
    choice = choose_alpha(
        data, SWEPT, folder=tmp_path, alphas=(0.0, 0.4, 2.0), temperatures=(0.3, 0.1), report=seen.append, **options
    )
    assert [(trial.alpha, trial.temperature) for trial in seen][:3] == [(0.0, 0.3), (0.4, 0.3), (2.0, 0.3)]
    least = min(seen, key=lambda trial: trial.nll)
    assert (choice.alpha, choice.temperature, choice.num_held_out) == (least.alpha, least.temperature, 30)
    logits = read_predictions(tmp_path / "alpha-0.4-temperature-0.3" / "predictions" / "validation.parquet").logits
    shifted = logits.numpy().astype(np.float64)
    terms = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(30), held.labels]
    assert seen[1].nll == pytest.approx(terms.mean())
    assert seen[1].standard_error == pytest.approx(terms.std(ddof=1) / np.sqrt(30))
    assert json.loads((tmp_path / "alpha.json").read_text())["criterion"] == "nll"


def test_one_held_out_sample_has_no_standard_error(tmp_path):
    data, held = vectors(60), vectors(1, first=100)
    options = {"difficulty": table_of(data, range(60)), "validation": held, "alphas": (0.4,), "temperatures": (0.3,)}
    choice = choose_alpha(data, SWEPT, folder=tmp_path, **options)
    assert "NaN" not in (tmp_path / "alpha.json").read_text()
    again = choose_alpha(data, SWEPT, folder=tmp_path, **options)
    assert np.isnan(again.trials[0].standard_error)
    assert again.trials[0].nll == choice.trials[0].nll


def test_an_interrupted_sweep_goes_on_and_a_finished_one_is_not_trained_again(tmp_path):
    data = vectors(60)
    options = {"folder": tmp_path, "difficulty": table_of(data, range(60)), "alphas": (0.0, 0.2), "temperatures": ()}

    def stop(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_alpha(data, SWEPT, report=stop, **options)
    written = (tmp_path / "alpha-0-temperature-0.3" / "model.safetensors").stat().st_mtime_ns
    choice = choose_alpha(data, SWEPT, **options)
    assert (tmp_path / "alpha-0-temperature-0.3" / "model.safetensors").stat().st_mtime_ns == written
    assert len(choice.trials) == 2
    assert choose_alpha(data, SWEPT, **options) == choice
    assert (tmp_path / "alpha-0-temperature-0.3" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ResumeError, match="learning_rate"):
        choose_alpha(data, SWEPT.changed(learning_rate=0.5), **options)
    (tmp_path / "alpha.json").write_text("{}")
    with pytest.raises(InputError, match="Delete it to sweep anew"):
        read_choice(tmp_path / "alpha.json")


def test_faults_of_the_run_to_come_are_told_before_the_sweep(tmp_path):
    train, other = vectors(60), vectors(60)
    patient = replace(SWEPT, loss="entropy", patience=2)
    outside = replace(other, labels=other.labels + 5)
    cases = [(patient, {}, "`validation` must be given"), (SWEPT, {"test": outside}, "`labels` must be in")]
    for settings, parts, message in cases:
        with pytest.raises(InputError, match=message):
            train_with_chosen_alpha(train, settings, out=tmp_path / "run", **parts)
    with pytest.raises(InputError, match="`validation` must not be trained on, as alpha is learnt from it; 60 samples"):
        train_with_chosen_alpha(train, replace(SWEPT, loss="entropy"), out=tmp_path / "run", validation=train)
    assert not list(tmp_path.iterdir())


def test_a_constant_bonus_has_no_temperature_to_try(tmp_path):
    choice = choose_alpha(vectors(60), replace(SWEPT, loss="entropy"), folder=tmp_path, alphas=(0.1, 0.2))
    assert [trial.alpha for trial in choice.trials] == [0.1, 0.2]


def test_a_run_with_a_chosen_alpha_says_how_and_leaves_no_trials(tmp_path):
    data, out = vectors(60), tmp_path / "run"
    settings = replace(SWEPT, loss="entropy")
    run = train_with_chosen_alpha(data, settings, out=out, test=vectors(20, first=100))
    choice = read_choice(out / "alpha.json")
    assert run.settings.alpha == choice.alpha
    assert run.data["num_samples"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert (out / "predictions" / "test.parquet").exists()
    assert train_with_chosen_alpha(data, settings, out=out, test=vectors(20, first=100), resume=True).path == out
    with pytest.raises(InputError, match="Use --resume"):
        train_with_chosen_alpha(data, settings, out=out)


def test_the_command_logs_the_trials(tmp_path, capsys):
    out = str(tmp_path / "run")
    command = ["train", "digits:validation", "--model", "mlp", "--loss", "entropy", "--epochs", "1", "--out", out]
    assert main([*command, "--alpha", "auto"]) == 0
    logged = capsys.readouterr().err
    assert logged.count("Tried alpha ") == 6
    assert "Tried alpha 0.5, temperature 0.3: held-out NLL " in logged
    assert main([*command, "--alpha", "lots"]) == 2
    assert "`alpha` must be a number; got 'lots'" in capsys.readouterr().err


def test_what_cannot_be_swept_is_refused(tmp_path):
    wrong = r"strength of a loss's bonus or penalty, to be `auto`; got the loss {}\. Use entropy, [^.]*, soft-ece\.$"
    for loss in ("cross-entropy", "mixup", "regmixup"):
        with pytest.raises(InputError, match=wrong.format(loss)):
            choose_alpha(vectors(), load_settings(model="mlp", loss=loss), folder=tmp_path)
    with pytest.raises(InputError, match="Give --validation DATA"):
        choose_alpha(vectors(4), replace(SWEPT, loss="entropy"), folder=tmp_path)
