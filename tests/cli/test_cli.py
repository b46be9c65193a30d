import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffident.auditing import audit, suspect_rows
from diffident.cli import COMMANDS, main
from diffident.difficulties import posterior
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.features import open_features


def fail(capsys, *arguments: str) -> str:
    """The one line that a wrong call prints."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  diffident {command}" in capsys.readouterr().out


def test_unknown_command_names_a_near_one(capsys):
    assert "got `scor`. Did you mean `score` or" in fail(capsys, "scor")


def test_audit_finds_the_misnamed_picture(photos, tmp_path, capsys):
    out = tmp_path / "audit"
    assert main(["audit", str(photos), "--encoder", "identity", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_suspects"] == 1
    suspects = pq.read_table(out / "suspects.parquet").to_pylist()
    assert [(row["id"], row["nearest_label_name"]) for row in suspects] == [("light/wrong.png", "dark")]
    with Image.open(out / "suspects.png") as sheet:
        assert sheet.size[0] >= 640
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "1 of 80 samples are suspects" in page
    assert 'id="pictures"' in page


def test_audit_of_features_alone_keeps_no_pictures_of_an_earlier_one(photos, tmp_path, capsys):
    out, features = tmp_path / "audit", tmp_path / "audit/features"
    assert main(["audit", str(photos), "--encoder", "identity", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["audit", str(features), "--out", str(out)]) == 0
    assert capsys.readouterr().err.endswith("name their data set with --data DATA.\n")
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "1 of 80 samples are suspects" in page
    assert 'id="pictures"' not in page
    assert not list(out.glob("*.png"))
    assert main(["audit", str(features), "--data", str(photos), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == ["hardest.png", "suspects.png"]


@pytest.mark.parametrize(("separation", "noted"), [(0, True), (9, False)])
def test_audit_says_where_features_tell_classes_apart_badly(tmp_path, capsys, separation, noted):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = generator.normal(size=(90, 2)) + separation * np.eye(3, 2)[labels]
    np.savez(tmp_path / "f.npz", features=features, labels=labels)
    assert main(["audit", str(tmp_path / "f.npz"), "--out", str(tmp_path / "audit")]) == 0
    assert ("Note: that is more than a third." in capsys.readouterr().err) == noted


def test_audit_leaves_the_audit_of_other_samples_alone(tmp_path, capsys):
    values, labels = np.eye(8, dtype=np.float32), np.arange(8) % 2
    for name, ids in (("f", [f"a{row}" for row in range(8)]), ("g", [f"b{row}" for row in range(8)])):
        np.savez(tmp_path / f"{name}.npz", features=values, labels=labels, ids=np.array(ids))
    out = tmp_path / "audit"
    assert main(["audit", str(tmp_path / "f.npz"), "--out", str(out)]) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "g.csv").write_text("a,b,label\n" + "".join(f"{row % 3},{row},{row % 2}\n" for row in range(8)))
    for other in ("g.npz", "g.csv"):  # features, and data that would be extracted into the folder first
        line = fail(capsys, "audit", str(tmp_path / other), "--out", str(out))
        assert f"`--out` must be new, or hold an audit of the same samples; {out} holds one of 8 others." in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main(["audit", str(tmp_path / "f.npz"), "--out", str(out)]) == 0


def test_an_audit_that_skipped_samples_can_be_done_again(photos, tmp_path, capsys):
    broken = next(iter(photos.rglob("*.png")))
    broken.write_bytes(broken.read_bytes()[:40])
    command = ["audit", str(photos), "--encoder", "glyphs", "--on-error", "skip", "--out", str(tmp_path / "audit")]
    assert main(command) == 0
    assert main(command) == 0


def test_audit_needs_a_folder(photos, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    line = fail(capsys, "audit", str(photos), "--encoder", "identity", "--out", str(file))
    assert line == f"diffident: error: `--out` must be a folder; got {file}, which is a file. Name a new one."
    assert file.read_text() == "mine"


def test_audit_by_posterior_fits_it_once(photos, tmp_path, capsys, monkeypatch):
    fit, fits = posterior.fit, []
    monkeypatch.setattr(posterior, "fit", lambda *given, **options: fits.append(options) or fit(*given, **options))
    out = tmp_path / "audit"
    command = ["audit", str(photos), "--encoder", "identity", "--out", str(out), "--shrinkage", "0.2", "--json"]
    assert main([*command, "--method", "posterior"]) == 0
    assert fits == [{"shrinkage": 0.2}]
    estimated = json.loads(capsys.readouterr().out)["estimated_wrong"]
    again = audit(read_difficulty_table(out / "difficulty.parquet"), open_features(out / "features").blocks)
    assert len(fits) == 2
    assert estimated == {key: round(80 * share) for key, share in vars(again.wrong_share).items()}
    rows = pq.read_table(out / "suspects.parquet")
    assert rows["probability_wrong"].to_pylist() == again.probability_wrong[suspect_rows(again)].tolist()


def test_audit_takes_another_label_column(tmp_path, capsys):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 4)) + 5 * np.eye(3, 4)[labels]
    noisy = labels.copy()
    noisy[7] = (noisy[7] + 1) % 3
    rows = [",".join(map(str, [*row, a, b])) for row, a, b in zip(features, labels, noisy, strict=True)]
    (tmp_path / "t.csv").write_text("a,b,c,d,label,noisy_label\n" + "\n".join(rows) + "\n")
    arguments = ["audit", str(tmp_path / "t.csv"), "--label-column", "noisy_label", "--out", str(tmp_path / "audit")]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_suspects"] == 1
    assert set(result["estimated_wrong"]) == {"value", "low", "high"}
    assert pq.read_table(tmp_path / "audit/suspects.parquet")["id"].to_pylist() == ["t:000007"]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Writes NAME.csv of 40 vectors with the labels and one column of others, all wrong."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)

    def write(name: str, *columns: str) -> str:
        labels = np.arange(40) % 2
        values = {"good_label": labels, "bad_label": 1 - labels, "label": labels}
        rows = [
            ",".join(map(str, [*point, *(values[column][row] for column in columns)]))
            for row, point in enumerate(generator.normal(size=(40, 2)) + 9 * labels[:, None])
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join([",".join(["a", "b", *columns]), *rows]) + "\n")
        return f"{name}.csv"

    return write


def train_on(column: str, train: str, validation: str, test: str, out: str = "run") -> int:
    data = [train, "--validation", validation, "--test", test, "--label-column", column]
    return main(["train", *data, "--model", "mlp", "--epochs", "20", "--set", "device=cpu", "--out", out, "--json"])


def test_the_label_column_reaches_validation_and_test_data(tables, capsys):
    train = tables("train", "good_label")
    assert train_on("good_label", train, tables("v", "bad_label", "good_label"), tables("t", "good_label")) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["evaluation"]["accuracy"]["value"] == 1
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation_accuracy"] == 1
    assert "labels are used" not in captured.err


def test_test_data_without_the_label_column_have_their_usual_labels_or_none(tables, capsys):
    train, validation = tables("train", "bad_label", "label"), tables("v", "label")
    assert train_on("bad_label", train, validation, tables("t")) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[:2] == [
        "v.csv has no column `bad_label`: its usual labels are used.",
        "t.csv has no column `bad_label`: no labels are used.",
    ]
    assert json.loads(captured.out)["evaluation"] is None
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation_accuracy"] == 0
    assert train_on("bad", train, validation, validation, "new") == 2
    assert "`--label-column` must name a column of train.csv; got `bad`." in capsys.readouterr().err


def test_extract_score_train_evaluate_compare(tmp_path, capsys):
    features, table = str(tmp_path / "features"), str(tmp_path / "difficulty.parquet")
    assert main(["extract", "digits:train", "--encoder", "glyphs", "--limit", "80", "--out", features]) == 0
    assert main(["score", features, "--out", table]) == 0
    for loss in ("cross-entropy", "difficulty-aware"):
        run = str(tmp_path / loss)
        options = ["--model", "cnn-small", "--loss", loss, "--difficulty", table, "--epochs", "2", "--out", run]
        data = str(tmp_path / "digits.npz")
        write_digits(data, features)
        assert main(["train", data, "--test", "digits:test", *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "cross-entropy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 600
    assert main(["compare", str(tmp_path / "cross-entropy"), str(tmp_path / "difficulty-aware"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["baseline"] == "cross-entropy"
    assert [row["name"] for row in compared["rows"]] == ["cross-entropy", "difficulty-aware"]
    predictions = str(tmp_path / "predictions.parquet")
    arguments = ["predict", str(tmp_path / "cross-entropy"), "digits:validation", "--out", predictions]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert pq.read_table(predictions).num_rows == 197


def write_digits(path: str, features: str) -> None:
    """The extracted digits as arrays with the same ids."""
    from diffident.data import open_dataset

    dataset = open_dataset("digits:train", limit=80)
    images = np.stack([np.asarray(dataset[row]) for row in range(80)])
    ids = np.array([str(sample) for sample in dataset.ids])
    np.savez(path, images=images, labels=dataset.labels, ids=ids, label_names=np.array(dataset.label_names))


def test_train_says_what_the_loss_does_not_use(tables, capsys):
    command = ["train", tables("train", "label"), "--model", "mlp", "--epochs", "1", "--alpha", "0.1"]
    assert main([*command, "--set", "doubt=0.3", "batch_size=8", "--out", "plain"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "Note: the loss 'cross-entropy' does not use `doubt`, `--alpha`. Choose another with --loss."
    )
    assert main([*command, "--loss", "entropy", "--set", "batch_size=8", "--out", "entropy"]) == 0
    assert "Note:" not in capsys.readouterr().err


def test_train_says_what_model_and_schedule_do_not_use(tables, capsys):
    command = ["train", tables("train", "label"), "--model", "mlp", "--epochs", "1", "--out", "plain"]
    given = ("min_count=2", "pretrained=false", "milestones=0.5", "width=8", "dropout=0.1", "batch_size=8")
    assert main([*command, "--set", *given]) == 0
    assert capsys.readouterr().err.splitlines()[:2] == [
        "Note: the model 'mlp' does not use `min_count`, `pretrained`.",
        "Note: the schedule 'cosine' does not use `milestones`.",
    ]


def test_empty_class_folder(photos, tmp_path, capsys):
    (photos / "none").mkdir()
    line = fail(capsys, "extract", str(photos), "--encoder", "identity", "--out", str(tmp_path / "f"))
    assert line == (
        f"diffident: error: `DATA` must have images in every class folder; {photos}/none has none. "
        "Add some, or delete the folder."
    )


def test_broken_image_is_named_and_can_be_skipped(photos, tmp_path, capsys):
    (photos / "dark/999.png").write_bytes(b"no picture")
    arguments = ["extract", str(photos), "--encoder", "identity", "--out", str(tmp_path / "f")]
    assert "sample `dark/999.png` must be a readable image" in fail(capsys, *arguments)
    arguments[-1] = str(tmp_path / "g")
    assert main([*arguments, "--on-error", "skip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_skipped"] == 1
    assert json.loads((tmp_path / "g/manifest.json").read_text())["skipped"] == ["dark/999.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["score", "nowhere", "--out", "d"],
            "`FEATURES` must be there; got nowhere, which is not. Check the path, or make it with: diffident extract.",
        ),
        (
            ["extract", "nowhere", "--encoder", "glyphs", "--out", "f"],
            "`DATA` must be there; got nowhere",
        ),
        (["extract", "digits", "--encoder", "glyph", "--out", "f"], "Did you mean `glyphs`?"),
        (
            ["extract", "digits", "--encoder", "sentence-transformer:x", "--out", "f"],
            "Did you mean `sentence-transformers:`",
        ),
        (["evaluate", "nowhere.parquet"], "nowhere.parquet"),
        (
            ["score", "x", "--out", "d", "--shrinkage", "2"],
            "must be `auto` or a number in [0, 1]; got `2`",
        ),
        (["train", "digits", "--model", "cnn-smal", "--out", "r"], "Did you mean `cnn-small`?"),
        (["train", "digits", "--model", "cnn-small", "--loss", "focl", "--out", "r"], "`loss` must be a known name"),
        (["train", "digits", "--model", "mlp", "--loss", "difficulty-aware", "--out", "r"], "diffident score"),
        (["train", "digits", "--model", "timm:", "--out", "r"], "`model` must have a name after 'timm:'"),
        (["compare", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in fail(capsys, *arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--encoder", "timm:resnet18"],
            "`--encoder` must be used with DATA; got the features {features}.",
        ),
        (["--image-size", "7"], "`--image-size` must be used with DATA; got the features {features}. Leave it out."),
        (
            ["--text-column", "no"],
            "`--text-column` must be used with DATA or --data; got features alone.",
        ),
        (["--data", "{other}"], "ids of the features are not in the data set"),
    ],
)
def test_audit_of_features_refuses_what_it_would_not_use(options, message, photos, tmp_path, capsys):
    features, other, out = tmp_path / "features", tmp_path / "other.csv", tmp_path / "audit"
    other.write_text("text,label\ngood,0\nbad,1\n")
    assert main(["extract", str(photos), "--encoder", "identity", "--out", str(features)]) == 0
    capsys.readouterr()
    places = {"features": features, "other": other}
    given = [option.format(**places) for option in options]
    assert message.format(**places) in fail(capsys, "audit", str(features), "--out", str(out), *given)
    assert not out.exists()


def test_audit_of_data_refuses_other_data(photos, tmp_path, capsys):
    command = ["audit", str(photos), "--encoder", "identity", "--data", str(photos), "--out", str(tmp_path / "audit")]
    expected = f"`--data` must be used with FEATURES; got the data {photos}. Leave it out."
    assert expected in fail(capsys, *command)


def test_audit_keeps_no_export_of_an_earlier_one(photos, tmp_path):
    out = tmp_path / "audit"
    command = ["audit", str(photos), "--encoder", "identity", "--out", str(out)]
    assert main([*command, "--export", "cleanlab"]) == 0
    assert (out / "cleanlab.parquet").exists()
    assert main([*command, "--method", "posterior"]) == 0
    assert not (out / "cleanlab.parquet").exists()


@pytest.mark.parametrize("labelled", [True, False])
def test_extract_hints_at_score_where_there_are_labels(labelled, tmp_path, capsys):
    labels = {"labels": np.arange(4) % 2} if labelled else {}
    np.savez(tmp_path / "data.npz", features=np.eye(4, dtype=np.float32), **labels)
    assert main(["extract", str(tmp_path / "data.npz"), "--encoder", "identity", "--out", str(tmp_path / "f")]) == 0
    assert ("Next: diffident score" in capsys.readouterr().err) == labelled
