"""`diffident train` on a few vectors: what it takes, learns and says."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from diffident.cli import main
from diffident.files import read_parquet
from diffident.storage import difficulty_table
from diffident.storage.difficulty_table import read_difficulty_table, write_difficulty_table
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import open_run


@pytest.fixture
def work(tmp_path, monkeypatch, capsys):
    """The folder to work in, with data of three classes and their difficulty."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("train", "validation", "test")):
        write_vectors(name, seed)
    assert main(["score", "train.npz", "--out", "difficulty.parquet"]) == 0
    capsys.readouterr()
    return tmp_path


def write_vectors(name: str, seed: int, **arrays) -> None:
    generator, labels = np.random.default_rng(seed), np.arange(60) % 3
    features = (generator.normal(size=(60, 4)) + 2 * np.eye(3, 4)[labels]).astype(np.float32)
    np.savez(f"{name}.npz", **{"features": features, "labels": labels, **arrays})


def train(*options: str, epochs: str = "3") -> int:
    return main(["train", "train.npz", "--model", "mlp", "--set", "device=cpu", "--epochs", epochs, *options])


AWARE = ("--loss", "difficulty-aware", "--difficulty", "difficulty.parquet")


def test_the_doubt_that_was_learnt_is_in_the_json_and_in_the_report(work, capsys):
    assert train(*AWARE, "--validation", "validation.npz", "--out", "run", "--json") == 0
    learnt = json.loads(capsys.readouterr().out)["learnt"]
    assert learnt == {"doubt": json.loads((work / "run/metrics.jsonl").read_text().splitlines()[-1])["doubt"]}
    assert train("--out", "plain", "--json") == 0
    assert json.loads(capsys.readouterr().out)["learnt"] == {}
    assert main(["report", "run", "plain", "--out", "report.html"]) == 0
    page = (work / "report.html").read_text(encoding="utf-8")
    assert f"<dt>doubt learnt by difficulty-aware</dt><dd><bdi>{learnt['doubt']:.2f}</bdi></dd>" in page
    assert ">Doubt<" in page


@pytest.mark.parametrize(("given", "others"), [((), 1.0), (("--set", "others=0.2"), 0.2)])
def test_others_that_is_given_is_used_where_alpha_is_chosen(work, given, others):
    assert train(*AWARE, "--alpha", "auto", *given, "--out", "run", epochs="1") == 0
    assert open_run("run").settings.others == others


def test_a_finished_run_is_evaluated_on_test_data_that_come_later(work, capsys):
    assert train("--test", "test.npz", "--out", "whole", "--json") == 0
    whole = json.loads(capsys.readouterr().out)["evaluation"]
    assert train("--out", "run") == 0
    weights = (work / "run/model.safetensors").read_bytes()
    capsys.readouterr()
    assert train("--out", "run", "--resume", "--test", "test.npz", "--json") == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] == whole
    predictions = [(work / run / "predictions/test.parquet").read_bytes() for run in ("run", "whole")]
    assert predictions[0] == predictions[1]
    assert (work / "run/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("arrays", "how"),
    [
        ({"features": np.zeros((3, 4), dtype=np.float32), "labels": [0, 1, 2]}, "3 samples instead of 60"),
        ({"ids": [f"test:{row + 1:06d}" for row in range(60)]}, "'test:000001' instead of 'test:000000' at row 0"),
        ({"labels": np.arange(1, 61) % 3}, "label 1 instead of 0 at 'test:000000'"),
    ],
)
def test_a_finished_run_keeps_its_predictions_and_takes_no_other_data_for_theirs(work, capsys, split, arrays, how):
    write_vectors("test", 2, ids=[f"test:{row:06d}" for row in range(60)])
    assert train(f"--{split}", "test.npz", "--out", "run") == 0
    kept = (work / f"run/predictions/{split}.parquet").read_bytes()
    count = len(arrays.get("features", range(60)))
    write_vectors("other", 3, **{"ids": [f"test:{row:06d}" for row in range(count)]} | arrays)
    capsys.readouterr()
    other = "validation" if split == "test" else "test"
    assert train("--out", "run", "--resume", f"--{split}", "other.npz", f"--{other}", "test.npz") == 2
    assert capsys.readouterr().err == (
        f"diffident: error: `{split}` must be the data that run has predicted already; got {how} in other. For other "
        "data: diffident predict run DATA.\n"
    )
    assert (work / f"run/predictions/{split}.parquet").read_bytes() == kept
    assert not (work / f"run/predictions/{other}.parquet").exists()
    assert train("--out", "run", "--resume", f"--{split}", "test.npz") == 0


def test_training_says_where_difficulty_does_not_know_of_wrong_labels(work, capsys):
    note = "Note: difficulty by rmd does not say which labels are wrong, so all are learnt."
    assert train(*AWARE, "--out", "run") == 0
    assert note in capsys.readouterr().err
    assert train(*AWARE, "--set", "distrust=false", "temperature=0.5", "--out", "all") == 0
    assert "Note:" not in capsys.readouterr().err
    assert train("--out", "plain") == 0
    assert note not in capsys.readouterr().err


def test_what_is_wrong_is_told_in_one_line_without_the_notes(work, capsys):
    assert train(*AWARE, "--out", "run") == 0
    capsys.readouterr()
    unused = ("--set", "gamma=2.0")
    for wrong in (
        ("--out", "run"),
        ("--set", "batch_size=1", "--out", "new"),
        ("--validation", "none", "--out", "new"),
    ):
        assert train(*AWARE, *unused, *wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
    for more in ((), ("--resume",), ("--resume", "--test", "test.npz")):  # a finished run trains no more
        assert train(*AWARE, *unused, "--out", "new", *more) == 0
        assert capsys.readouterr().err.count("does not use `gamma`") == 1
    assert train(*AWARE, *unused, "--alpha", "auto", "--out", "auto") == 0
    said = capsys.readouterr().err
    assert said.count("does not use `gamma`") == 1
    assert said.index("does not use `gamma`") < said.index("Tried alpha")


def test_resuming_a_run_that_is_not_there_begins_it_and_says_so(work, capsys):
    note = "Note: there is no run at run to go on with; a new one begins."
    assert train("--out", "run", "--resume") == 0
    assert note in capsys.readouterr().err
    assert train("--out", "run", "--resume") == 0
    assert note not in capsys.readouterr().err


def test_what_a_finished_run_lacks_is_predicted_on_the_device_that_is_given(work):
    assert train("--out", "run") == 0
    config = work / "run/config.toml"
    config.write_text(config.read_text().replace('device = "cpu"', 'device = "mps"'))
    assert open_run("run").settings.device == "mps"
    assert train("--out", "run", "--resume", "--test", "test.npz") == 0


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("named", "other", "words"), [("train", "held", ("names", "numbers")), ("held", "train", ("numbers", "names"))]
)
def test_held_out_labels_are_names_where_those_trained_on_are(work, capsys, split, named, other, words):
    write_vectors(named, 0, label_names=["a", "b", "c"])
    write_vectors(other, 1)
    assert train(f"--{split}", "held.npz", "--out", "run") == 2
    assert capsys.readouterr().err == (
        f"diffident: error: `labels` of held must be {words[0]} of classes, as those of the training data are; got "
        f"{words[1]}. Write all labels in one way.\n"
    )
    assert not (work / "run").exists()


@pytest.mark.parametrize(
    ("named", "other", "words"), [("train", "new", ("names", "numbers")), ("new", "train", ("numbers", "names"))]
)
def test_predicted_labels_are_names_where_those_of_the_run_are(work, capsys, named, other, words):
    write_vectors(named, 0, label_names=["a", "b", "c"])
    write_vectors(other, 1)
    assert train("--out", "run") == 0
    capsys.readouterr()
    assert main(["predict", "run", "new.npz", "--out", "predictions.parquet"]) == 2
    assert capsys.readouterr().err == (
        f"diffident: error: `labels` of new must be {words[0]} of classes, as those of the run are; got {words[1]}. "
        "Write all labels in one way.\n"
    )
    assert not (work / "predictions.parquet").exists()
    assert main(["predict", "run", "new.npz", "--no-labels", "--out", "predictions.parquet"]) == 0
    assert read_predictions("predictions.parquet").labels is None


def test_no_epochs_are_refused(work, capsys):
    assert train("--out", "run", epochs="0") == 2
    assert capsys.readouterr().err == (
        "diffident: error: `--epochs` must be at least 1; got 0. Leave it out for the model's own.\n"
    )


def test_the_samples_left_out_are_counted_among_those_trained_on_by_one_reading(work, capsys, monkeypatch):
    table = read_difficulty_table("difficulty.parquet")
    doubted = replace(table, distrust=np.where(np.arange(60) % 10 == 0, 0.9, 0.0))
    write_difficulty_table(doubted, "difficulty.parquet")
    arrays = np.load("train.npz")
    few = {name: arrays[name][:15] for name in ("features", "labels")}
    np.savez("train.npz", ids=table.ids[:15].astype(str), **few)
    reads = []
    monkeypatch.setattr(difficulty_table, "read_parquet", lambda *given: reads.append(given) or read_parquet(*given))
    assert train(*AWARE, "--out", "run") == 0
    note = "2 of 15 samples are left out of training: their labels are probably wrong. --set distrust=false keeps "
    note += "their labels."
    assert note in capsys.readouterr().err
    assert len(reads) == 1
    others = np.where(np.arange(60) == 0, 1 - table.labels, table.labels)
    write_difficulty_table(replace(doubted, likely_labels=others), "difficulty.parquet")
    assert train(*AWARE, "--set", "relabel=true", "--out", "relabelled") == 0
    messages = capsys.readouterr().err
    assert (
        "1 of 15 samples learn their likely label, as the given one is probably wrong. --set relabel=false leaves "
        "these samples out, --set distrust=false keeps their labels."
    ) in messages
    assert "1 of 15 samples are left out of training" in messages


def test_help_says_that_a_finished_run_can_be_resumed_for_its_predictions(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "a finished one only gets the predictions of --validation and --test that it lacks" in printed


def test_a_promise_on_data_that_training_learnt_from_is_said_to_be_inexact(work, capsys):
    note = "Note: training learnt from the samples of {}/predictions/validation.parquet"
    assert train(*AWARE, "--validation", "validation.npz", "--test", "test.npz", "--out", "learnt") == 0
    assert train("--validation", "validation.npz", "--test", "test.npz", "--out", "plain") == 0
    for run, options, noted in (
        ("learnt", ["--abstain", "0.1"], True),
        ("learnt", [], False),
        ("plain", ["--abstain", "0.1"], False),
    ):
        capsys.readouterr()
        calibration = f"{run}/predictions/validation.parquet"
        assert main(["evaluate", run, "--resamples", "10", "--calibration", calibration, *options]) == 0
        assert (note.format(run) in capsys.readouterr().err) == noted


def test_the_config_of_another_program_is_no_run(work, capsys):
    assert train("--validation", "validation.npz", "--test", "test.npz", "--out", "run") == 0
    (work / "mine/preds").mkdir(parents=True)
    (work / "mine/config.toml").write_text('x = "y"')
    file = work / "mine/preds/validation.parquet"
    file.write_bytes((work / "run/predictions/validation.parquet").read_bytes())
    capsys.readouterr()
    assert main(["evaluate", "run", "--resamples", "10", "--calibration", str(file), "--abstain", "0.1"]) == 0
    assert "Note:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["train", "nowhere", "--model", "mlp", "--out", "new"], "nowhere"),
        (["train", "train.npz", "--model", "mlp", "--out", "."], "`out` must be new; . exists."),
        (["predict", "nowhere", "validation.npz", "--out", "predictions.parquet"], "nowhere"),
    ],
)
def test_a_mistyped_name_does_not_wait_for_the_libraries_of_training(work, given, told):
    code = f"import sys; from diffident.cli import main; print(main({given}), 'lightning_fabric' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "2 False\n"
    assert told in done.stderr
