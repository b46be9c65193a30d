"""What the commands made of good data, to be spoilt."""

import shutil

import pytest
from tests.cli.working import save_photos

from diffident.cli import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Everything that the commands make of good photographs and texts."""
    folder = tmp_path_factory.mktemp("finished")
    photos = str(save_photos(folder / "photos"))
    (folder / "notes.csv").write_text("text,label\n" + "good day,0\nbad night,1\n" * 4)
    features, run = str(folder / "features"), str(folder / "run")
    for command in (
        ["extract", photos, "--encoder", "identity", "--out", features],
        ["score", features, "--out", str(folder / "difficulty.parquet")],
        ["audit", photos, "--encoder", "identity", "--out", str(folder / "audit")],
        ["train", photos, "--test", photos, "--model", "cnn-small", "--epochs", "1", "--out", run],
        ["train", str(folder / "notes.csv"), "--model", "ngrams", "--epochs", "1", "--out", str(folder / "texts")],
        ["predict", run, photos, "--out", str(folder / "predictions.parquet")],
        ["evaluate", str(folder / "predictions.parquet"), "--out", str(folder / "evaluation.json")],
    ):
        assert main(command) == 0
    return folder


@pytest.fixture
def work(finished, tmp_path, monkeypatch, capsys):
    """A copy of what is finished, to work in."""
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    capsys.readouterr()
    return tmp_path / "work"
