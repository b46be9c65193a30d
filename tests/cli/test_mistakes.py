"""What a new user does wrong, and the one line that each command answers with."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.working import DIFFICULTY_AWARE, commands_on, contents, save_photos, write_forms

from diffident.cli import main


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(256, size=(32, 32), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def answer(capsys, *command: str) -> str:
    """The one line that a wrong call prints, without the prefix."""
    code = main(list(command))
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1), captured.err
    return captured.err.strip().removeprefix("diffident: error: ")


def empty_class(work):
    (save_photos(work / "pets") / "fish").mkdir()
    return "pets"


def photo_without_class(work):
    save_photos(work / "pets")
    shutil.move(work / "pets/cat/0.png", work / "pets/new.png")
    return "pets"


def splits_for_classes(work):
    for split in ("train", "test"):
        save_photos(work / "pets" / split)
    return "pets"


def text(name, content):
    def make(work):
        (work / name).write_text(content)
        return name

    return make


MISTAKES = {
    "empty class folder": (
        empty_class,
        [],
        "`DATA` must have images in every class folder; pets/fish has none. Add some, or delete the folder.",
    ),
    "photo beside the folders": (
        photo_without_class,
        [],
        "`DATA` must have every image in a class folder; pets/new.png is in none. Move it.",
    ),
    "folder of splits": (
        splits_for_classes,
        [],
        "`DATA` must be one split; pets holds test, train. For example: pets/test.",
    ),
    "wrong path": (
        lambda work: "photo",
        [],
        "`DATA` must be there; got photo, which is not. Did you mean `photos`? Forms: a folder of class folders, "
        "features from `diffident extract`, .parquet, .csv, .tsv, .jsonl, .npz, .npy, hf:NAME[:SPLIT], "
        "torchvision:NAME[:SPLIT], digits[:SPLIT].",
    ),
    "missing label": (
        text("a.csv", "text,label\ngood,0\nbad,\n"),
        [],
        "`label` must have a label in every row; got none at row 3 of a.csv. Fill it in, or remove the row.",
    ),
    "mixed labels": (
        text("a.csv", "text,label\ngood,0\nbad,no\n"),
        [],
        "`label` must hold numbers or names, not both; got 0 at row 2 and 'no' at row 3 of a.csv. "
        "Write all labels in one way.",
    ),
    "mixed numbers": (
        text("a.csv", "size,label\n1.5,0\nbig,1\n"),
        [],
        "`size` must have a number in every row; got 'big' at row 3 of a.csv. Mend it, or remove the column.",
    ),
    "missing path": (
        text("a.csv", "image,label\nphotos/cat/0.png,0\n,1\n"),
        [],
        "`image` must have a path in every row; got none at row 3 of a.csv. Fill it in.",
    ),
    "wrong column": (
        text("a.csv", "text,sentiment\ngood,0\nbad,1\n"),
        ["--label-column", "sentimant"],
        "`--label-column` must name a column of a.csv; got `sentimant`. Did you mean `sentiment`? "
        "Choices: sentiment, text.",
    ),
    "column of a folder": (
        lambda work: "photos",
        ["--label-column", "label"],
        "`--label-column` must be used with a table; photos has no columns. Leave it out.",
    ),
    "text as Parquet": (
        text("a.parquet", "text,label\ngood,0\nbad,1\n"),
        [],
        "`DATA` must be readable Parquet; a.parquet is not: Parquet magic bytes not found in footer. Either the file "
        "is corrupted or this is not a parquet file. Write it anew.",
    ),
    "text as npz": (
        text("a.npz", "text,label\ngood,0\nbad,1\n"),
        [],
        "`DATA` must be a readable .npz; a.npz is not: it is no whole zip archive. Save plain numbers and strings with "
        "numpy.savez, without objects.",
    ),
    "JSON list": (
        text("a.jsonl", '[{"text": "good", "label": 0}]'),
        [],
        '`DATA` must have an object on every line; got [{"text": "good", "label": 0}] at line 1 of a.jsonl. Mend it.',
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_command_on_wrong_data_gives_the_one_line(mistake, work, capsys):
    make, options, expected = MISTAKES[mistake]
    data = make(work)
    before = contents(work)
    for command in commands_on(data, *options, out="new/"):
        line = answer(capsys, *command)
        assert line.replace("`FEATURES`", "`DATA`") == expected
    assert contents(work) == before


IMAGES = {
    "broken image": (
        lambda path: path.write_bytes(b"no image"),
        "sample `dog/3.png` must be a readable image; cannot identify image file. Replace or remove it.",
    ),
    "empty image": (
        lambda path: path.write_bytes(b""),
        "sample `dog/3.png` must be a readable image; it is empty. Replace or remove it.",
    ),
    "truncated JPEG": (
        lambda path: path.write_bytes(jpeg()[:-300]),
        "sample `dog/3.png` must be a readable image; image file is truncated (21 bytes not processed). "
        "Replace or remove it.",
    ),
}
SKIP = "Or leave such samples out with --on-error skip."


@pytest.mark.parametrize("mistake", IMAGES)
def test_image_that_cannot_be_read_is_named(mistake, work, capsys):
    spoil, expected = IMAGES[mistake]
    spoil(save_photos(work / "pets") / "dog/3.png")
    before = contents(work)
    assert answer(capsys, "extract", "pets", "--encoder", "identity", "--out", "new") == f"{expected} {SKIP}"
    assert answer(capsys, "audit", "pets", "--encoder", "identity", "--out", "new audit") == f"{expected} {SKIP}"
    assert answer(capsys, "train", "pets", "--model", "cnn-small", "--out", "new run") == expected
    assert answer(capsys, "predict", "run", "pets", "--out", "predictions.parquet") == expected
    after = contents(work)
    assert {name: after[name] for name in before} == before


def test_image_file_that_is_missing_is_named(work, capsys):
    (work / "a.csv").write_text("image,label\nphotos/cat/0.png,cat\nphotos/gone.png,dog\n")
    expected = (
        "sample `a:000001` must be a readable image file; photos/gone.png: No such file or directory. Mend the path, "
        "or remove the row."
    )
    assert answer(capsys, "extract", "a.csv", "--encoder", "identity", "--out", "new") == f"{expected} {SKIP}"
    assert answer(capsys, "train", "a.csv", "--model", "cnn-small", "--out", "new run") == expected
    assert answer(capsys, "predict", "run", "a.csv", "--out", "predictions.parquet") == expected
    arguments = ["extract", "a.csv", "--encoder", "identity", "--on-error", "skip", "--out", "skipped"]
    assert main(arguments) == 0
    assert "1 unreadable samples were skipped" in capsys.readouterr().err


def test_labels_of_one_class_are_refused(work, capsys):
    shutil.rmtree(save_photos(work / "pets") / "dog")
    before = contents(work)
    expected = (
        "`labels` must be of at least 2 classes to tell hard from easy; got class 0 alone. Add samples of another."
    )
    assert main(["extract", "pets", "--encoder", "identity", "--out", "new"]) == 0
    capsys.readouterr()
    assert answer(capsys, "score", "new", "--out", "difficulty.parquet") == expected
    assert answer(capsys, "audit", "pets", "--encoder", "identity", "--out", "new audit") == expected
    assert answer(capsys, "train", "pets", "--model", "cnn-small", "--out", "new run") == (
        "`data` must have at least 2 classes; got 1 at pets. Check labels."
    )
    after = contents(work)
    assert {name: after[name] for name in before} == before


def test_data_of_another_kind_than_in_training(work, capsys):
    before = contents(work)
    assert answer(capsys, "predict", "run", "notes.csv", "--out", "predictions.parquet") == (
        "`data` must be image, as in training; got text at notes. Give other data."
    )
    assert answer(capsys, "predict", "texts", "photos", "--out", "predictions.parquet") == (
        "`data` must be text, as in training; got image at photos. Give other data."
    )
    assert contents(work) == before


def test_results_in_the_wrong_place(work, capsys):
    before = contents(work)
    for wrong in ("photos", "notes.csv", "difficulty.parquet", "run"):
        assert answer(capsys, "score", wrong, "--out", "again.parquet") == (
            f"`FEATURES` must be a folder from `diffident extract` or an .npz; got {wrong}. Run: diffident extract."
        )
    assert answer(capsys, "score", "nowhere.npz", "--out", "again.parquet") == (
        "`FEATURES` must be there; got nowhere.npz, which is not. Check the path, or make it with: diffident extract."
    )
    for wrong in ("photos", "notes.csv", "difficulty.parquet", "features", "nowhere"):
        assert answer(capsys, "predict", wrong, "photos", "--out", "predictions.parquet") == (
            f"`run` must be a folder of `diffident train`; {wrong} has no config.toml. Check the path."
        )
    assert answer(capsys, "evaluate", "difficulty.parquet", "--out", "evaluation.json") == (
        "`predictions` must have `logits` or `probs`; got id, label, difficulty, rank, nearest_label, margin in "
        "difficulty.parquet. Rename the array that holds them."
    )
    assert answer(capsys, "evaluate", "notes.csv", "--out", "evaluation.json") == (
        "`predictions` must be readable Parquet; notes.csv is not: Parquet magic bytes not found in footer. Either the "
        "file is corrupted or this is not a parquet file. Predictions are .parquet from "
        "`diffident predict`, or .npz with logits or probs, and labels."
    )
    assert answer(capsys, "evaluate", "photos") == (
        "`RUN` must have predictions/test.parquet; photos has none. Train with --test DATA, or predict."
    )
    assert answer(capsys, *DIFFICULTY_AWARE, "--difficulty", "predictions.parquet", "--out", "new run") == (
        "`difficulty` must have the columns id, label, difficulty, rank, nearest_label, margin; predictions.parquet "
        "lacks difficulty, rank, nearest_label, margin. Make it with: diffident score."
    )
    assert contents(work) == before


def test_columns_that_are_left_out_are_said_on_one_line(work, capsys):
    (work / "a.csv").write_text("size,name,label\n" + "1.5,rex,0\n3,tom,1\n" * 3)
    assert main(["extract", "a.csv", "--encoder", "identity", "--out", "new", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "diffident: note: no numbers in `name` of a.csv: left out.\n"
    assert '"num_features": 1' in captured.out


@pytest.mark.parametrize(
    "command",
    [
        "score a.npz --out a.npz",
        "predict texts notes.csv --out ./notes.csv",
        "evaluate predictions.parquet --out predictions.parquet",
        "evaluate predictions.parquet --difficulty difficulty.parquet --out difficulty.parquet",
        "evaluate run --ood far=predictions.parquet --out predictions.parquet",
        "report run mine=evaluation.json --out evaluation.json",
    ],
)
def test_no_input_is_written_over(command, work, capsys):
    write_forms(work)
    before = contents(work)
    out = command.split()[-1]
    assert answer(capsys, *command.split()) == (
        f"`--out` must not be an input, which would be lost; got {out} for both. Name another file."
    )
    assert contents(work) == before


@pytest.mark.parametrize(
    "command", ["score features", "predict run photos", "evaluate predictions.parquet", "report run"]
)
def test_a_folder_is_no_file_to_write(command, work, capsys):
    before = contents(work)
    line = answer(capsys, *command.split(), "--out", "photos")
    assert line.startswith("`--out` must be a file; got the folder photos. ")
    assert contents(work) == before


@pytest.mark.parametrize("command", ["audit features", "quickstart"])
def test_a_file_is_no_folder_to_write_in(command, work, capsys):
    before = contents(work)
    assert answer(capsys, *command.split(), "--out", "notes.csv") == (
        "`--out` must be a folder; got notes.csv, which is a file. Name a new one."
    )
    assert contents(work) == before


@pytest.mark.parametrize(
    ("command", "out", "suffix"),
    [
        ("score features", "difficulty.csv", ".parquet"),
        ("score features", "d.par", ".parquet"),
        ("predict run photos", "predictions.npz", ".parquet"),
        ("evaluate predictions.parquet", "evaluation.html", ".json"),
        ("evaluate predictions.parquet", "e.js", ".json"),
        ("report run", "page.pdf", ".html"),
        ("report run", "page.h", ".html"),
    ],
)
def test_the_ending_of_a_file_says_what_is_in_it(command, out, suffix, work, capsys):
    before = contents(work)
    assert answer(capsys, *command.split(), "--out", out) == (
        f"`--out` must end in {suffix}, as that is what is written; got {out}. For example: {Path(out).stem}{suffix}."
    )
    assert contents(work) == before


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("score features", "again.PARQUET"),
        ("score features", "again"),
        ("evaluate predictions.parquet --resamples 0", "eval-0.1"),
        ("report run", "page.htm"),
        ("report run", "report 2024.01"),
    ],
)
def test_an_ending_in_capitals_or_none_is_no_mistake(command, out, work):
    assert main([*command.split(), "--out", out]) == 0
    assert (work / out).is_file()


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("audit features --out {}", "{}"),
        ("audit photos --encoder identity --out {}", "{}/features"),
        ("extract photos --encoder identity --out {}", "{}"),
        ("train photos --model mlp --out {}", "{}"),
        ("quickstart --out {}", "{}"),
        ("score features --out {}/difficulty.parquet", "{}"),
        ("report run --out page.html --figures {}", "{}"),
        ("evaluate predictions.parquet --out {}/evaluation.json", "{}"),
    ],
)
def test_a_folder_that_cannot_be_made_is_named(command, folder, work, capsys):
    folder = folder.format("notes.csv/new")
    line = answer(capsys, *command.format("notes.csv/new").split())
    assert line == f"The folder {folder} cannot be made: Not a directory. Name another."


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="nobody, not even root, can write in /proc")
@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("predict run photos --out /proc/p.parquet", "/proc/p.parquet"),
        ("evaluate run --out /proc/e.json", "/proc/e.json"),
        ("report run --out /proc/r.html", "/proc/r.html"),
        ("score features --out /proc/d.parquet", "/proc/d.parquet"),
    ],
)
def test_a_folder_that_cannot_be_written_in_is_named_by_the_file_in_it(command, file, work, capsys):
    assert answer(capsys, *command.split()) == (
        f"The file {file} cannot be written: No such file or directory. Name another."
    )
