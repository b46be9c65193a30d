import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from cleanlab import Datalab
from cleanlab.classification import CleanLearning
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from tests.cli.test_cli import fail

from diffident.auditing import audit
from diffident.cli import main
from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.errors import IdMismatchError, InputError
from diffident.integrations import write_formats
from diffident.integrations.cleanlab import to_cleanlab
from diffident.integrations.fiftyone import to_fiftyone
from diffident.records import DifficultyTable
from diffident.storage.difficulty_table import write_difficulty_table

TABLE = DifficultyTable(
    ids=np.array(["a", "b", "c", "d"], dtype=object),
    labels=np.array([0, 1, 0, 1]),
    difficulty=np.array([1.0, 5.0, 4.0, -2.0]),
    rank=np.array([1 / 3, 1.0, 2 / 3, 0.0]),
    nearest_labels=np.array([0, 0, 1, 1]),
    margin=np.array([0.0, 0.5, 4.0, 0.0]),
    metadata={"method": "rmd", "encoder": "e", "condition_number": 2.0},
    label_names=("cat", "dog"),
)

SUSPECTS = audit(TABLE)

WITHOUT_PANDAS = """
import sys
from pathlib import Path

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)

sys.meta_path.insert(0, NoPandas())
from diffident.auditing import audit
from diffident.errors import MissingDependencyError
from diffident.integrations import write_formats
from diffident.integrations.cleanlab import to_cleanlab
from diffident.storage.difficulty_table import read_difficulty_table
folder = Path(sys.argv[1])
table = read_difficulty_table(folder / "difficulty.parquet")
write_formats(["cleanlab"], audit(table), None, folder)
try:
    to_cleanlab(audit(table))
except MissingDependencyError as error:
    print(error)
"""


def array_images():
    """The table's samples, one more, in another order; each has a grey level of its own."""
    levels = np.array([30, 0, 10, 40, 20], dtype=np.uint8)
    ids = np.array(["d", "a", "b", "x", "c"], dtype=object)

    def read(row):
        return Image.new("L", (2, 2), int(levels[row]))

    return Dataset("toy", "image", ids, np.array([1, 0, 1, 1, 0]), read, "f", ("cat", "dog"))


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 0, 0)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def samples_of(folder):
    return json.loads((folder / "samples.json").read_text())["samples"]


def test_label_issues_in_the_data_sets_order():
    frame = to_cleanlab(SUSPECTS)
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame["is_label_issue"].tolist() == [False, True, True, False]
    assert frame["label_score"].tolist() == pytest.approx([2 / 3, 0, 1 / 3, 1])
    assert frame["given_label"].tolist() == [0, 1, 0, 1]
    assert frame["predicted_label"].tolist() == [0, 0, 1, 1]
    assert frame["id"].tolist() == ["a", "b", "c", "d"]


def test_how_likely_a_label_is_wrong_is_kept_where_the_audit_has_it(tmp_path):
    suspects = replace(SUSPECTS, probability_wrong=np.array([0.25, 0.5, 1.0, 0.0]))
    assert to_cleanlab(suspects)["label_score"].tolist() == [0.75, 0.5, 0.0, 1.0]
    samples = samples_of(to_fiftyone(suspects, array_images(), tmp_path / "f"))
    assert [sample["probability_wrong"] for sample in samples] == [0.25, 0.5, 1.0, 0.0]


def test_columns_and_types_are_those_of_datalab():
    generator = np.random.default_rng(0)
    probs = generator.dirichlet([1, 1], 40)
    lab = Datalab({"label": generator.integers(0, 2, 40).tolist()}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=probs, issue_types={"label": {}})
    theirs, ours = lab.get_issues("label"), to_cleanlab(SUSPECTS).drop(columns="id")
    assert list(ours.columns) == list(theirs.columns)
    assert ours.dtypes.tolist() == theirs.dtypes.tolist()
    assert type(ours.index) is type(theirs.index)


def test_clean_learning_prunes_the_suspects():
    points, labels = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    points[:, 0] += 9 * labels
    given = np.where(np.arange(40) < 4, 1 - labels, labels)
    number = np.arange(40, dtype=np.float64)
    margin = np.where(given == labels, 0.0, 1.0)
    table = DifficultyTable(np.arange(40).astype(str).astype(object), given, number, number / 39, labels, margin)
    learner = CleanLearning(KNeighborsClassifier(1), seed=0)  # knows by heart what it was trained on
    learner.fit(points, given, label_issues=to_cleanlab(audit(table)))
    assert (learner.predict(points) == labels).all()
    with pytest.raises(ValueError, match="labels must match"):
        learner.fit(points, labels, label_issues=to_cleanlab(audit(table)))


def test_no_suspects_and_no_samples():
    assert not to_cleanlab(audit(replace(TABLE, margin=np.zeros(4))))["is_label_issue"].any()
    none = np.zeros(0)
    empty = DifficultyTable(none.astype(object), none.astype(np.int64), none, none, none.astype(np.int64), none)
    assert to_cleanlab(audit(empty)).dtypes.tolist() == to_cleanlab(SUSPECTS).dtypes.tolist()


def test_the_file_gives_the_same_frame(tmp_path):
    assert write_formats(["cleanlab"], SUSPECTS, None, tmp_path) == ["cleanlab.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cleanlab.parquet"), to_cleanlab(SUSPECTS))


def test_the_file_needs_no_pandas_and_the_frame_says_so(tmp_path):
    write_difficulty_table(TABLE, tmp_path / "difficulty.parquet")
    run = subprocess.run([sys.executable, "-c", WITHOUT_PANDAS, str(tmp_path)], capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr.decode()
    assert "`to_cleanlab` must have pandas; " in run.stdout.decode()
    assert (tmp_path / "cleanlab.parquet").exists()


def test_fiftyone_samples_are_joined_by_id(tmp_path):
    folder = to_fiftyone(SUSPECTS, array_images(), tmp_path / "f")
    samples = samples_of(folder)
    assert samples[1] == {
        "filepath": "data/00000002.png",
        "tags": ["suspect"],
        "source_id": "b",
        "ground_truth": {"_cls": "Classification", "label": "dog"},
        "nearest": {"_cls": "Classification", "label": "cat"},
        "difficulty": 5.0,
        "rank": 1.0,
        "margin": 0.5,
        "suspect": True,
    }
    assert [sample["source_id"] for sample in samples] == ["a", "b", "c", "d"]
    assert [sample["tags"] for sample in samples] == [[], ["suspect"], ["suspect"], []]
    assert [Image.open(folder / sample["filepath"]).getpixel((0, 0)) for sample in samples] == [0, 10, 20, 30]


def test_fiftyone_metadata_has_no_version_and_so_no_schema(tmp_path):
    folder = to_fiftyone(SUSPECTS, array_images(), tmp_path / "f")
    info = {"classes": ["cat", "dog"], "method": "rmd", "encoder": "e"}
    assert json.loads((folder / "metadata.json").read_text()) == {"name": "toy", "media_type": "image", "info": info}


@pytest.mark.parametrize("select", [None, [3, 1, 0, 2]])
def test_images_that_are_files_stay_where_they_are(select, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset("photos")
    dataset = dataset if select is None else dataset.select(np.array(select)).select(np.arange(4))
    table = replace(TABLE, ids=np.array(["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"], dtype=object))
    folder = to_fiftyone(audit(table), dataset, tmp_path / "f")
    assert [sample["filepath"] for sample in samples_of(folder)] == [str(photos / name) for name in table.ids]
    assert not (folder / "data").exists()


def test_relative_paths_in_a_table_become_absolute(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"]
    rows = [f"{sample},photos/{name},0" for sample, name in zip("abcd", names, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["id,image,label", *rows]))
    samples = samples_of(to_fiftyone(SUSPECTS, open_dataset("table.csv"), tmp_path / "f"))
    assert [sample["filepath"] for sample in samples] == [str(photos / name) for name in names]


def test_classes_without_names_are_numbers(tmp_path):
    folder = to_fiftyone(
        audit(replace(TABLE, label_names=None)), replace(array_images(), label_names=None), tmp_path / "f"
    )
    assert samples_of(folder)[1]["ground_truth"]["label"] == "1"


def test_what_fiftyone_cannot_show_is_refused(tmp_path):
    with pytest.raises(InputError, match="`fiftyone` must have images to show; got text data at toy"):
        to_fiftyone(SUSPECTS, replace(array_images(), modality="text"), tmp_path / "f")
    with pytest.raises(IdMismatchError, match="1 of 4 ids of the audit are not in the data set toy: first"):
        to_fiftyone(SUSPECTS, array_images().select(np.array([1, 2, 4])), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_audit_exports_both(photos, tmp_path, capsys):
    out = tmp_path / "audit"
    arguments = ["audit", str(photos), "--encoder", "identity", "--out", str(out), "--json"]
    assert main([*arguments, "--export", "cleanlab", "fiftyone"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][-2:] == ["cleanlab.parquet", "fiftyone/"]
    assert pd.read_parquet(out / "cleanlab.parquet")["id"].tolist() == [
        s["source_id"] for s in samples_of(out / "fiftyone")
    ]


def test_wrong_exports_are_one_line_and_come_before_the_work(photos, tmp_path, capsys):
    arguments = ["audit", str(photos), "--encoder", "identity", "--out", str(tmp_path / "audit"), "--export"]
    assert "`--export` must be a known format; got `fiftyon`. Did you mean `fiftyone`" in fail(
        capsys, *arguments, "fiftyon"
    )
    np.savez(tmp_path / "f.npz", features=torch.randn(20, 3).numpy(), labels=np.arange(20) % 2)
    arguments = ["audit", str(tmp_path / "f.npz"), "--out", str(tmp_path / "audit"), "--export", "fiftyone"]
    assert "`fiftyone` must have images to show; got no data set" in fail(capsys, *arguments)
    assert not (tmp_path / "audit").exists()
