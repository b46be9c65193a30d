"""docs/formats.md against the files that the library makes: names, types and needs; and the page's Python."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.formats_made import digits, keys_of, leave_out, make_files, names_of, score
from tests.formats_page import PAGE, TABLES, Name, below, evaluation_keys, held, listed, names_in

import diffident
from diffident.auditing import audit, open_audit
from diffident.calibrators import CALIBRATORS, calibrate
from diffident.conformal import METHODS as CONFORMAL
from diffident.data import arrays, columns
from diffident.difficulties import METHODS
from diffident.errors import DiffidentError
from diffident.metrics.suite import metric_order
from diffident.models import load_preprocessor
from diffident.report.inputs import read_corrupted
from diffident.report.marks import Marks, marks_csv
from diffident.storage.calibrator_file import read_calibrator
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.dynamics import read_dynamics
from diffident.storage.evaluation_file import read_evaluation
from diffident.storage.features import open_features
from diffident.storage.label_features import read_label_features
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import open_run
from diffident.training.tuning import read_choice

TYPES = {pa.string(): "string", pa.int64(): "int64", pa.int32(): "int32", pa.bool_(): "bool"}
TYPES |= {pa.float32(): "float32", pa.float64(): "float64"}
# Written with libraries and models that these tests leave alone.
ELSEWHERE = {"tokenizer/", "tensorboard/", "wandb/", "mlflow-run.txt"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """Where the page's Python has run and the library has made every file; the working directory while tests run."""
    folder = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        exec(code, {})
        make_files()
        yield folder


class Case(NamedTuple):
    """A kind of file: what the page says of it, which were made, what reads one, and names the page leaves open."""

    page: dict[str, Name]
    files: str
    read: Callable[[Path], Any] | None = None
    free: frozenset[str] = frozenset()


METRICS = metric_order(binary=False)
OTHERS = frozenset({"noisy", "parity"})
CASES = {
    "manifest": Case(
        listed("Features", "key of the manifest"),
        "made/*/manifest.json",
        lambda f: _load(f),
        frozenset({"column_names.parity"}),
    ),
    "index": Case(held("Features", "index.parquet"), "made/*/index.parquet", lambda f: _load(f), OTHERS),
    "shard": Case(held("Features", "shard-00000.safetensors"), "made/*/shard-*.safetensors", lambda f: _load(f)),
    "shard record": Case(held("Features", "shard-00000.json"), "made/saved/shard-00001.json"),
    "label features": Case(
        held("Features", "label_features"), "made/saved/label_features.safetensors", read_label_features
    ),
    "label features elsewhere": Case(held("Other files", "label-features"), "made/saved/label_features.safetensors"),
    "difficulty": Case(listed("Difficulty", "column"), "t*/difficulty.parquet", read_difficulty_table),
    "predictions": Case(listed("Predictions", "column"), "runs/*/predictions/*.parquet", read_predictions),
    "config": Case(held("RUN", "config.toml"), "runs/*/config.toml", lambda f: open_run(f.parent, unfinished=True)),
    "metrics": Case(held("RUN", "metrics.jsonl"), "runs/*/metrics.jsonl"),
    "preprocessor": Case(
        held("RUN", "preprocessor.json"), "runs/*/preprocessor.json", lambda f: load_preprocessor(f.parent)
    ),
    "environment": Case(held("RUN", "environment.json"), "runs/*/environment.json"),
    "dynamics": Case(held("RUN", "dynamics.parquet"), "runs/aware/dynamics.parquet/*.parquet", read_dynamics),
    "alpha": Case(held("RUN", "alpha.json"), "runs/*/alpha.json", read_choice),
    "checkpoint": Case(held("RUN", "checkpoint"), "runs/*/checkpoint/last.pt"),
    "evaluation": Case(
        evaluation_keys(),
        "runs/*/evaluation.json",
        read_evaluation,
        frozenset(
            {
                *METRICS,
                *(f"{metric}.{field}" for metric in METRICS[1:] for field in ("value", "low", "high")),
                *("ood.others", "ood_detectors.others", "abstention.0.9"),
                *(f"calibrated.{name}" for name in CALIBRATORS),
                *(f"conformal.{name}" for name in CONFORMAL),
            }
        ),
    ),
    "robustness": Case(
        held("Other files", "robustness.json"),
        "runs/*/robustness.json",
        lambda f: read_corrupted({"aware": str(f)}),
        frozenset({"clean.accuracy", "clean.ece", "corrupted.brightness"}),
    ),
    "suspects": Case(held("AUDIT", "suspects.parquet"), "audits/*/suspects.parquet", lambda f: open_audit(f.parent)),
    "hardest": Case(held("AUDIT", "suspects.parquet"), "audits/*/hardest.parquet"),
    "suspects as CSV": Case(held("AUDIT", "suspects.parquet"), "audits/*/suspects.csv"),
    "audit": Case(held("AUDIT", "audit.json"), "audits/*/audit.json", lambda f: open_audit(f.parent)),
    "marks": Case(held("AUDIT", "marks.jsonl"), "audits/*/marks.jsonl", lambda f: Marks(f, np.array(["n1"]))),
    "cleanlab": Case(held("AUDIT", "cleanlab.parquet"), "audits/*/cleanlab.parquet"),
    "features as Parquet": Case(held("Other files", "to_parquet"), "features.parquet"),
    **{
        name: Case(
            held("Other files", "calibrators: ")
            | {f"state.{key}": about for key, about in held("Other files", f"`{name}`").items()},
            f"fitted/{name}.json",
            read_calibrator,
        )
        for name in CALIBRATORS
    },
}


def _load(file: Path) -> diffident.records.Features:
    return open_features(file.parent).load()


@pytest.mark.parametrize("case", CASES)
def test_the_page_names_what_is_written(case, place):
    page, files, _, free = CASES[case]
    found = [names_of(file) for file in place.glob(files)]
    assert set.union(*found) - free == set(page) - free
    assert {name for name, about in page.items() if about.needed} <= set.intersection(*found)


@pytest.mark.parametrize("case", [case for case, about in CASES.items() if about.files.endswith(".parquet")])
def test_the_page_says_the_types(case, place):
    page, files, _, free = CASES[case]
    for file in place.glob(files):
        for field in pq.read_schema(file):
            kind = field.type.value_type if pa.types.is_fixed_size_list(field.type) else field.type
            assert field.name in free or page[field.name].type == TYPES[kind], field


@pytest.mark.parametrize("case", [case for case, about in CASES.items() if about.read is not None])
def test_a_reader_needs_what_is_bold(case, place, tmp_path):
    page, files, read, _ = CASES[case]
    file = max(place.glob(files), key=lambda file: len(names_of(file)))
    read(file)
    for number, name in enumerate(names_of(file) & set(page)):
        folder = shutil.copytree(file.parent, tmp_path / str(number), copy_function=shutil.copyfile)
        leave_out(folder / file.name, name)
        assert _refused(read, folder / file.name) == page[name].needed, name


def _refused(read: Callable[[Any], Any], what: Any) -> bool:
    try:
        read(what)
    except DiffidentError:
        return True
    return False


FOLDERS = {
    "Features": ("made/*", lambda folder: open_features(folder).load()),
    "RUN": ("runs/*", lambda folder: diffident.predict(folder, digits("test", 5))),
    "AUDIT": ("audits/*", open_audit),
}


@pytest.mark.parametrize("section", FOLDERS)
def test_the_page_names_every_file(section, place):
    page = {name: about.needed for row in TABLES[section, "file"] for name, about in names_in(row[0]).items()}
    folders, _ = FOLDERS[section]
    seen = set()
    for folder in place.glob(folders):
        for file in (file for file in folder.rglob("*") if file.is_file()):
            seen |= _on_page(file.relative_to(folder).as_posix(), page)
    assert seen | (ELSEWHERE if section == "RUN" else set()) == set(page)


def _on_page(file: str, page: dict[str, bool]) -> set[str]:
    """The name that the page has for a file: the file's, that of the first of its kind, or its folder's."""
    name = re.sub(r"(shard|epoch)-0000\d", lambda match: f"{match[1]}-0000{'01'[match[1] == 'epoch']}", file)
    if name == "predictions/others.parquet":
        return set()
    found = {one for one in page if one == name or (one.endswith("/") and name.startswith(one))}
    assert len(found) == 1, file
    return found


@pytest.mark.parametrize(("section", "example"), {"Features": "saved", "RUN": "aware", "AUDIT": "images"}.items())
def test_a_folder_needs_the_files_in_bold(section, example, place, tmp_path):
    folders, read = FOLDERS[section]
    for number, row in enumerate(TABLES[section, "file"]):
        for name, about in names_in(row[0]).items():
            folder = shutil.copytree(place / folders.replace("*", example), tmp_path / f"{number}-{Path(name).name}")
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
            assert _refused(read, folder) == about.needed, name


def expected_metadata(method: str) -> set[str]:
    """Keys of the metadata by a method, as the page's table has them."""
    keys = set()
    for first, second in TABLES["Difficulty", "method"]:
        named = method in names_in(first) or first in ("every one", method)
        keys |= set(names_in(second)) if named != first.startswith("all but") else set()
    return keys


@pytest.mark.parametrize("method", METHODS)
def test_metadata_of_difficulty(method, place):
    options, split = {}, "test"
    if method == "knn":
        pytest.importorskip("faiss")
    if method == "zero-shot":
        options = {"label_features": read_label_features("made/saved")}
    if method == "training-dynamics":
        options, split = {"dynamics": read_dynamics("runs/aware")}, "train"
    assert set(score(method, split, **options).metadata) == expected_metadata(method)


def test_metadata_of_several_features(place):
    sources = [open_features("made/train"), open_features("made/saved")]
    for combine, method in {"stack": "posterior", "mean-rank": "every one"}.items():
        metadata = diffident.score_combined(sources, combine=combine, method="posterior").metadata
        assert set(metadata.pop("sources")[1]) == expected_metadata("posterior")
        assert keys_of(metadata) | {"sources"} == expected_metadata(method) | expected_metadata("several FEATURES")


def test_metadata_of_schemas(place):
    sentences = re.findall(r"schema's metadata \w+(?: \w+)* JSON under `diffident`: (.*?)[.:]\n", PAGE, re.DOTALL)
    files = ["train/difficulty.parquet", "runs/aware/predictions/test.parquet"]
    for sentence, file in zip(sentences, files, strict=True):
        assert set(json.loads(pq.read_schema(file).metadata[b"diffident"])) == set(names_in(sentence)), file


def test_sets_of_an_evaluation(place):
    content = json.loads(Path("runs/aware/evaluation.json").read_text())
    assert set(content["ood"]["others"]) == set(content["ood_detectors"]["others"]["entropy"]) == set(below("ood"))
    assert set(content["conformal"]["lac"]) == set(below("conformal"))
    assert set(content["abstention"]["0.9"]) == set(below("abstention"))
    assert set(content["calibrated"]["beta"]) == set(METRICS)


def test_marked_samples_as_csv(place):
    header = marks_csv(audit(read_difficulty_table("train/difficulty.parquet")), [0]).splitlines()[0]
    assert header.split(",") == list(held("Other files", "CSV of marked"))


def test_metrics_csv_has_the_metrics(place):
    assert names_of(place / "runs/aware/metrics.csv") == names_of(place / "runs/aware/metrics.jsonl")


def test_names_that_are_recognised():
    usual = {
        "label": (columns.LABEL_NAMES, arrays._LABEL_KEYS),
        "text": (columns.TEXT_NAMES, ()),
        "image": (columns.IMAGE_NAMES, arrays._DATA_KEYS),
        "id": (columns.ID_NAMES, ("ids",)),
    }
    usual["class names"] = (("huggingface",), ("label_names",))
    rows = {row[0]: row[1:] for row in TABLES["Data sets", "part"]}
    assert {part: tuple(tuple(names_in(cell)) for cell in rows[part]) for part in usual} == usual


NOT_TRIED = {"labels.npy", "CIFAR10:train:000042", "OWNER-NAME:train:000042", "notes:train"}
ENDINGS = {".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".npz", ".npy"}
LAYOUTS = ("train.parquet", "train-00000-of-00002.parquet", "train/0000.parquet")


def test_forms_of_data_sets(tmp_path, monkeypatch):
    """Every form on the page is read, and gives the ids that the page says."""
    monkeypatch.chdir(tmp_path)
    forms = _make_forms()
    for spec, first in forms.items():
        dataset = diffident.open_dataset(spec)
        assert dataset.ids[0] == first, spec
        assert list(dataset.labels[[0, -1]]) == [0, 8 if spec == "digits" else 1], spec
    ids = {re.sub("00$", "42", first) for first in forms.values()}
    named = {name for row in TABLES["Data sets", "form"] for cell in row for name in names_in(cell)}
    assert named == NOT_TRIED | ENDINGS | set(LAYOUTS) | ids | {"dog/deeper/2.jpg", "NAME_labels.npy"}


def _make_forms() -> dict[str, str]:
    """Data sets of two samples in every form, and scikit-learn's digits, with the first one's id."""
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    for name in ("notes.parquet", "notes.pq", *(f"{number}/notes/{name}" for number, name in enumerate(LAYOUTS))):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, name)
    pq.write_table(table, "1/notes/train-00001-of-00002.parquet")
    pa_csv.write_csv(table, "notes.csv")
    pa_csv.write_csv(table, "notes.tsv", pa_csv.WriteOptions(delimiter="\t"))
    for ending in (".jsonl", ".ndjson"):
        Path(f"notes{ending}").write_text("\n".join(map(json.dumps, table.to_pylist())))
    np.savez("notes.npz", x=np.zeros((2, 3)), y=[0, 1])
    np.save("notes.npy", np.zeros((2, 4, 4), dtype=np.uint8))
    np.save("notes_labels.npy", [0, 1])
    for name in ("photos/cat/1.png", "photos/dog/deeper/2.jpg"):
        Path(name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(name)
    forms = {"photos": "cat/1.png", "digits": "digits:0000"}
    forms |= {f"notes{ending}": "notes:000000" for ending in ENDINGS}
    return forms | {f"{number}/notes:train": "notes:train:000000" for number in range(len(LAYOUTS))}


def test_the_library_reads_what_the_page_writes(place):
    ids = [f"n{row}" for row in range(20)]
    notes, again, photos = map(diffident.open_dataset, ("notes.jsonl", "notes.parquet", "photos.npz"))
    assert [data.modality for data in (notes, again, photos)] == ["text", "text", "image"]
    assert [notes[1], again[1], photos[1].size] == ["a dog called n1", "a dog called n1", (8, 8)]
    alone, folder = open_features("features.npz"), open_features("features")
    assert torch.equal(alone.load().values, folder.load().values)
    for source in (notes, again, photos, alone, folder):
        assert list(source.ids) == ids
        assert list(source.labels) == [0, 1] * 10
        assert source.label_names == ("cat", "dog")
    table = read_difficulty_table("difficulty.parquet")
    assert diffident.training.by_id.with_weights(notes, table)[int(table.rank.argmax())][-1] == 1
    predictions = [read_predictions(f"predictions.{ending}") for ending in ("parquet", "npz")]
    assert torch.equal(predictions[0].logits, predictions[1].logits)
    assert [list(one.ids) for one in predictions] == [ids, ids]
    assert read_evaluation("evaluation.json").metrics["accuracy"].value == 0.5
    assert calibrate(read_calibrator("temperature.json"), predictions[0].logits).shape == (20, 2)
    assert read_label_features("label_features.npz").shape == (2, 4)


def test_arrays_that_are_read_but_not_written(place, tmp_path):
    read = {
        "is enough": {"features", "labels", "ids", "label_names"},
        "is read too": {"logits", "probs", "labels", "ids"},
    }
    for words, names in read.items():
        (sentence,) = re.findall(rf"`\.npz` {words}: (.*?)\.\s", PAGE, re.DOTALL)
        assert set(names_in(sentence)) == names
    probs = np.full((20, 2), 0.5)
    ids, labels = [f"n{row}" for row in range(20)], np.arange(20) % 2
    pq.write_table(pa.table({"id": ids, "probs": list(probs)}), tmp_path / "p.parquet")
    np.savez(tmp_path / "p.npz", probs=probs, labels=labels)
    assert read_predictions(tmp_path / "p.parquet").labels is None
    assert read_predictions(tmp_path / "p.npz").ids[-1] == "19"
    np.savez(tmp_path / "f.npz", features=probs, noisy=labels)
    assert list(open_features(tmp_path / "f.npz", label_column="noisy").labels) == list(labels)


def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 230
    assert all(len(line) <= 120 for line in PAGE.splitlines() if not line.startswith("|"))
