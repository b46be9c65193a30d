import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from making import make_predictions, make_suspects, make_table, write_audit_folder

from diffident.auditing import AuditSource, audit, open_audit
from diffident.cli import main
from diffident.cli.audit import absolute_data
from diffident.cli.train import evaluate_run
from diffident.data import open_dataset
from diffident.errors import InputError
from diffident.evaluation import evaluate
from diffident.report.inputs import read_corrupted, sort_inputs
from diffident.settings import load_settings
from diffident.storage.evaluation_file import write_evaluation
from diffident.storage.predictions import write_predictions
from diffident.training import train


def report(capsys, *arguments) -> dict:
    assert main(["report", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fail(capsys, *arguments) -> str:
    assert main(["report", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip().removeprefix("diffident: error: ")


@pytest.fixture
def audited(photos, tmp_path):
    """A folder with the pictures and their audit."""
    out = tmp_path / "audit"
    assert main(["audit", str(photos), "--encoder", "identity", "--out", str(out), "--json"]) == 0
    return tmp_path


@pytest.fixture
def predictions(tmp_path):
    """Files of two methods, of an out-of-distribution set and of a corrupted one."""
    for name, seed in (("plain", 0), ("aware", 1), ("fog-2", 2)):
        write_predictions(make_predictions(seed=seed), tmp_path / f"{name}.parquet")
    write_predictions(make_predictions(50, labelled=False), tmp_path / "noise.parquet")
    return tmp_path


def test_an_audit_alone_is_a_page_that_finds_its_samples_again(audited, capsys):
    capsys.readouterr()
    result = report(capsys, audited / "audit", "--out", audited / "report.html")
    assert result["bytes"] == (audited / "report.html").stat().st_size
    assert result["notes"] == []
    page = (audited / "report.html").read_text(encoding="utf-8")
    assert 'id="pictures"' in page
    assert "1 of 80 samples are suspects: another class is nearer than their own." in page


def test_a_page_without_the_data_says_what_is_missing(audited, capsys):
    capsys.readouterr()
    (audited / "photos").rename(audited / "moved")
    notes = report(capsys, audited / "audit", "--out", audited / "report.html")["notes"]
    assert notes[0].startswith("The data of the audit could not be opened: `DATA` must be there; got ")
    assert notes[1] == "The samples themselves are not shown, as no data set was given: use --data DATA."
    moved = report(capsys, audited / "audit", "--data", audited / "moved", "--out", audited / "report.html")
    assert moved["notes"] == []


def test_predictions_are_evaluated_compared_and_drawn(predictions, capsys):
    inputs = [predictions / "plain.parquet", f"difficulty-aware={predictions / 'aware.parquet'}"]
    outside = [
        "--ood",
        f"noise={predictions / 'noise.parquet'}",
        "--corrupted",
        f"fog-2={predictions / 'fog-2.parquet'}",
    ]
    figures = ["--figures", predictions / "figures", "--resamples", 20]
    result = report(capsys, *inputs, *outside, *figures, "--out", predictions / "r.html")
    stems = {name.rpartition(".")[0] for name in result["figures"]}
    assert {"reliability", "risk-coverage", "confidence-0", "confusion-1", "accuracy-by-corruption-0"} <= stems
    assert {"verdict", "methods", "metrics-plain", "metrics-difficulty-aware"} <= stems
    assert sorted(result["figures"]) == sorted(path.name for path in (predictions / "figures").iterdir())
    page = (predictions / "r.html").read_text(encoding="utf-8")
    assert "out-of-distribution: noise" in page
    assert "difficulty-aware minus plain" in page


def test_what_is_printed_is_what_is_drawn(predictions, capsys):
    one = make_predictions(seed=0)
    evaluation = evaluate(one.logits, one.labels, num_resamples=20)
    write_evaluation(evaluation, predictions / "evaluation.json")
    result = report(capsys, f"m={predictions / 'evaluation.json'}", "--out", predictions / "r.html")
    assert result["figures"] == []
    page = (predictions / "r.html").read_text(encoding="utf-8")
    assert f"<bdi>{evaluation.metrics['ece'].value:.4f}</bdi>" in page


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere"], "`INPUT` must be there; got nowhere, which is not. Check the path."),
        (["a.parquet", "b/a.parquet"], "`INPUT` must have a name of its own; got 'a' twice. Give one as NAME=FILE."),
        (["audit", "audit"], "`AUDIT` must be one; got audit and audit. Make a page for each."),
        (["empty"], "`INPUT` must be a run, an evaluation.json, predictions (.parquet, .npz) or an audit"),
        (["all"], "For all its runs: all/runs/*."),
    ],
)
def test_inputs_that_are_none_are_told_apart(tmp_path, monkeypatch, inputs, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "all" / "runs").mkdir(parents=True)
    for name in ("a.parquet", "b/a.parquet"):
        write_predictions(make_predictions(), tmp_path / name)
    write_audit_folder(tmp_path / "audit", make_suspects())
    with pytest.raises(InputError) as error:
        sort_inputs(inputs)
    assert message in str(error.value)


def test_wrong_options_are_one_line(predictions, capsys):
    plain, out = predictions / "plain.parquet", ("--out", predictions / "r.html")
    assert fail(capsys, plain, "--out", predictions) == (
        f"`--out` must be a file; got the folder {predictions}. For example: --out {predictions / 'report.html'}."
    )
    assert fail(capsys, plain, "--ood", "noise", *out) == (
        "`--ood` must be NAME=FILE with a name of its own; got `noise`. Give each a name."
    )
    assert fail(capsys, plain, "--baseline", "other", *out).startswith(
        "`--baseline` must be one of the methods; got 'other'"
    )
    assert fail(capsys, predictions / "noise.parquet", *out).startswith("`INPUT` must have labels; got none at ")
    assert fail(capsys, plain, "--rows", 0, *out) == "`rows` must be at least 1; got 0. Leave it out."
    assert not (predictions / "r.html").exists()


def test_corrupted_data_are_files_by_kind_and_severity_or_a_methods_robustness(predictions):
    path = predictions / "robustness.json"
    path.write_text(json.dumps({"corrupted": {"fog": {"3": {"accuracy": 0.5, "ece": 0.2}}}}), encoding="utf-8")
    found = read_corrupted({"plain": str(path), "salt-1": str(predictions / "fog-2.parquet")})
    assert found["plain"] == {("fog", 3): {"accuracy": 0.5, "ece": 0.2}}
    assert list(found["corrupted"]) == [("salt", 1)]
    assert 0 < found["corrupted"]["salt", 1]["accuracy"] < 1
    with pytest.raises(
        InputError, match=r"^`--corrupted` must be KIND-SEVERITY=FILE with a severity from 1 to 5; got `fog="
    ):
        read_corrupted({"fog": str(predictions / "fog-2.parquet")})
    for name in ("fog-0", "fog-6", "fog-²", "-3"):
        with pytest.raises(InputError, match="with a severity from 1 to 5; got"):
            read_corrupted({name: str(predictions / "fog-2.parquet")})


def test_an_audit_comes_back_from_its_folder(tmp_path):
    suspects = make_suspects(30)
    source = AuditSource("digits:train", {"label_column": "x"}, "/somewhere/features")
    back, again = open_audit(write_audit_folder(tmp_path, suspects, source))
    assert again == source
    assert back.wrong_share == suspects.wrong_share
    np.testing.assert_array_equal(back.suspect, suspects.suspect)
    np.testing.assert_array_equal(np.isnan(back.probability_wrong), ~suspects.suspect)
    known = back.probability_wrong[suspects.suspect]
    np.testing.assert_array_equal(known, suspects.probability_wrong[suspects.suspect])


def test_features_in_the_folder_win_over_those_that_were(tmp_path):
    (tmp_path / "features").mkdir(parents=True)
    _, source = open_audit(write_audit_folder(tmp_path, make_suspects(30), AuditSource(features="/gone")))
    assert source.features == str(tmp_path / "features")


def test_a_folder_of_difficulty_alone_is_an_audit(tmp_path):
    write_audit_folder(tmp_path, audit(make_table([0, 1], [0, 0], [1.0, 2.0])))
    (tmp_path / "audit.json").unlink()
    (tmp_path / "suspects.parquet").unlink()
    suspects, source = open_audit(tmp_path)
    assert suspects.probability_wrong is None
    assert source == AuditSource()


@pytest.mark.parametrize("text", ["", "[]", '{"wrong_share": null}', '{"source": {"dta": 1}, "wrong_share": null}'])
def test_a_damaged_summary_is_named(tmp_path, text):
    folder = write_audit_folder(tmp_path, make_suspects(30))
    (folder / "audit.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"^`AUDIT` must have a whole audit\.json; "):
        open_audit(folder)


def test_suspects_of_another_audit_are_refused(tmp_path):
    folder = write_audit_folder(tmp_path, make_suspects(30))
    table = pq.read_table(folder / "suspects.parquet")
    names = [f"other-{row}" for row in range(len(table))]
    pq.write_table(table.set_column(0, "id", [names]), folder / "suspects.parquet")
    with pytest.raises(InputError, match=r"ids of .*suspects\.parquet are not in"):
        open_audit(folder)


def test_data_keeps_its_name_and_loses_its_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert absolute_data("digits:train") == "digits:train"
    assert absolute_data("hf:x/y:test") == "hf:x/y:test"
    assert absolute_data("data") == str(tmp_path / "data")
    assert absolute_data("data:test") == f"{tmp_path / 'data'}:test"


def test_a_run_brings_its_curves_and_its_out_of_distribution_sets(tmp_path, capsys):
    settings = load_settings(None, ["device=cpu"], model="mlp", loss="cross-entropy", epochs=2)
    few = open_dataset("digits:train", limit=40)
    train(few, settings, out=tmp_path / "run", test=open_dataset("digits:test", limit=40))
    evaluate_run(tmp_path / "run")
    write_predictions(make_predictions(50, 10, labelled=False), tmp_path / "run" / "predictions" / "noise.parquet")
    result = report(capsys, tmp_path / "run", "--figures", tmp_path / "f", "--out", tmp_path / "r.html")
    stems = {name.rpartition(".")[0] for name in result["figures"]}
    assert {"train-loss", "train-accuracy", "reliability", "metrics-cross-entropy"} <= stems
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "out-of-distribution: noise" in page
    for option in ("--data", "--features", "--label-column"):
        assert fail(capsys, tmp_path / "run", option, "some", "--out", tmp_path / "r.html") == (
            f"`{option}` must be used with an audit; got none among the inputs. Name one, or leave it out."
        )
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "s.html"):
        said = fail(capsys, tmp_path / "run", "--figures", folder, "--out", tmp_path / "s.html")
        assert said.startswith(("`--figures` must be a folder; got the file", f"The folder {folder} cannot be made"))
        assert not (tmp_path / "s.html").exists()
    assert fail(capsys, tmp_path / "run", "--resamples", "0", "--out", tmp_path / "s.html").startswith(
        "`--resamples` must"
    )
    noise = f"noise={tmp_path / 'run' / 'predictions' / 'noise.parquet'}"
    assert fail(capsys, tmp_path / "run", "--ood", noise, "--out", tmp_path / "r.html").startswith(
        "`--ood` must be used with files of predictions; got none among the inputs."
    )


def test_a_run_that_is_not_finished_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, ["device=cpu"], model="mlp", loss="cross-entropy", epochs=2)

    def stop(progress):
        if progress.epoch_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(open_dataset("digits:train", limit=40), settings, out="run", progress=stop)
    note = "run is not finished: 1 of 2 epochs are done. Go on with `diffident train --resume`."
    assert report(capsys, "run", "--out", "r.html")["notes"] == [note]
    assert f'<p class="note"><bdi>{note}</bdi></p>' in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert main(["report", "run", "--out", "r.html"]) == 0
    assert note in capsys.readouterr().err


@pytest.mark.parametrize(("whole", "done"), [(1, 1), (0, 0)])
def test_the_line_that_a_killed_run_left_half_written_is_no_epoch(tmp_path, capsys, monkeypatch, whole, done):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, ["device=cpu"], model="mlp", loss="cross-entropy", epochs=2)
    train(open_dataset("digits:train", limit=40), settings, out="run")
    metrics = tmp_path / "run/metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    metrics.write_text("".join(lines[:whole]) + lines[whole][:20], encoding="utf-8")
    assert main(["report", "run", "--out", "r.html"]) == 2  # a finished run has only whole lines
    assert f"got none at line {whole + 1} of run/metrics.jsonl." in capsys.readouterr().err
    (tmp_path / "run/model.safetensors").unlink()
    note = f"run is not finished: {done} of 2 epochs are done. Go on with `diffident train --resume`."
    assert report(capsys, "run", "--out", "r.html")["notes"] == [note]
