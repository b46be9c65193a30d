"""One file of every kind that the library writes; their names, and the same without one of them."""

import json
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

import diffident
from diffident.cli import main
from diffident.data.dataset import Dataset
from diffident.integrations.parquet import to_parquet
from diffident.records import DifficultyTable
from diffident.report.marks import Marks
from diffident.settings import TrainingSettings, load_settings
from diffident.storage.difficulty_table import write_difficulty_table
from diffident.storage.features import open_features, save_features
from diffident.storage.label_features import write_label_features
from diffident.storage.predictions import read_predictions, write_predictions
from diffident.storage.shard_records import ShardRecord, write_record
from diffident.training.tuning import train_with_chosen_alpha


def make_files() -> None:
    """Every file, in the working directory, in which docs/formats.md's Python has run."""
    _make_features()
    _make_runs()
    _make_evaluations()
    _make_audits()


def digits(split: str, count: int) -> Dataset:
    """Some samples of a split of scikit-learn's digits."""
    return diffident.open_dataset(f"digits:{split}", limit=count)


def _make_features() -> None:
    for split, count in {"train": 100, "validation": 60, "test": 60}.items():
        diffident.extract(digits(split, count), "identity", out=f"made/{split}")
    source = open_features("made/train")
    columns = {"noisy": source.labels, "parity": source.labels % 2}
    names = {"parity": ("even", "odd")}
    save_features(replace(source.load(), columns=columns, column_names=names, label_column="digit"), "made/saved")
    write_label_features(torch.eye(10, 64), "made/saved")
    write_record(Path("made/saved"), ShardRecord(1, {}, 64, []))
    to_parquet(source, "features.parquet")
    for split, method in {"train": "posterior", "test": "rmd"}.items():
        write_difficulty_table(score(method, split), f"{split}/difficulty.parquet")


def score(method: str, split: str, **options: Any) -> DifficultyTable:
    """The difficulty by the features that were made of a split."""
    source = open_features(f"made/{split}")
    shared = {"num_classes": 10, "label_names": source.label_names, "method": method}
    return diffident.score_features(source.blocks, source.ids, source.labels, **shared, **options)


def _make_runs() -> None:
    train, validation, test = digits("train", 100), digits("validation", 60), digits("test", 60)
    shared = {"epochs": 1, "device": "cpu"}
    aware = load_settings(model="mlp", loss="difficulty-aware", dynamics=True, loggers="csv", **shared)
    table = "train/difficulty.parquet"
    diffident.train(train, aware, out="runs/aware", difficulty=table, validation=validation, test=test)
    easy_first = load_settings(model="mlp", loss="difficulty-aware", curriculum=1.0, **shared)
    diffident.train(train, easy_first, out="runs/easy-first", difficulty=table)
    anew = load_settings(model="mlp", loss="difficulty-aware", restart=True, batch_size=16, **{**shared, "epochs": 9})
    wrong = replace(validation, labels=(np.asarray(validation.labels) + 1) % 10)
    diffident.train(train, anew, out="runs/anew", difficulty=table, validation=wrong)
    ranked = load_settings(model="mlp", loss="crl", ema=0.9, patience=1, **shared)
    diffident.train(train, ranked, out="runs/ranked", validation=validation)
    diffident.train(diffident.open_dataset("notes.jsonl"), load_settings(model="ngrams", **shared), out="runs/words")
    train_with_chosen_alpha(train, load_settings(model="mlp", loss="entropy", **shared), out="runs/chosen")


def _make_evaluations() -> None:
    validation = "runs/aware/predictions/validation.parquet"
    write_predictions(replace(read_predictions(validation), labels=None), "runs/aware/predictions/others.parquet")
    command = (
        "evaluate runs/aware --ood others=runs/aware/predictions/others.parquet --detectors entropy --by-class "
        f"--difficulty test/difficulty.parquet --calibration {validation} --calibrators all --save-calibrators fitted "
        "--features train=made/train test=made/test calibration=made/validation --conformal 0.1 --abstain 0.9 "
        "--resamples 5"
    )
    assert main(command.split()) == 0
    test = digits("test", 20)
    images = np.stack([np.asarray(test[row]) for row in range(20)])
    np.savez("digits.npz", images=images, labels=test.labels, label_names=test.label_names)
    assert main(["evaluate", "runs/aware", "--corruptions", "digits.npz", "--kinds", "brightness"]) == 0


def _make_audits() -> None:
    images = "audit digits.npz --encoder identity --out audits/images --top 3 --export cleanlab fiftyone"
    for command in (images, "audit features.npz --data notes.jsonl --out audits/texts"):
        assert main(command.split()) == 0
    for marked in (True, False):
        Marks("audits/images/marks.jsonl", np.array(["digits:000001"])).set(0, marked)


def keys_of(content: dict) -> set[str]:
    """The keys, and with a dot those of an object below or of the objects of a list."""
    keys = set(content)
    for key, value in content.items():
        below = value[0] if isinstance(value, list) and value else value
        keys |= {f"{key}.{name}" for name in below} if isinstance(below, dict) else set()
    return keys


def names_of(file: Path) -> set[str]:
    """The names that a file holds."""
    if file.suffix == ".parquet":
        return set(pq.read_schema(file).names)
    if file.suffix == ".csv":
        return set(pa_csv.read_csv(file).column_names)
    if file.suffix == ".safetensors":
        return set(load_file(file))
    if file.suffix == ".pt":
        return set(torch.load(file, weights_only=True))
    if file.suffix == ".toml":
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        assert set(content) - {"data"} <= {field.name for field in fields(TrainingSettings)}
        return {name for name in keys_of(content) if name.split(".")[0] in ("model", "data")}
    return set().union(*map(keys_of, read_objects(file)))


def read_objects(file: Path) -> list[dict]:
    """The object of a JSON file, or those of JSON lines."""
    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in (text.splitlines() if file.suffix == ".jsonl" else [text])]


def leave_out(file: Path, name: str) -> None:
    """Write the file again without a name."""
    if file.suffix == ".parquet":
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns([name]), file)
    elif file.suffix == ".safetensors":
        save_file({"else": load_file(file).pop(name)}, file)
    elif file.suffix == ".toml":
        table = rf"\[{name}\].*" if name == "data" else rf"^{name.rpartition('.')[2]} = .*?\n"
        file.write_text(re.sub(table, "", file.read_text(), count=1, flags=re.DOTALL | re.MULTILINE))
    else:
        file.write_text("\n".join(json.dumps(_without(one, name)) for one in read_objects(file)) + "\n")


def _without(content: dict, name: str) -> dict:
    key, _, below = name.partition(".")
    for one in (content[key] if isinstance(content[key], list) else [content[key]]) if below else [content]:
        one.pop(below or key)
    return content
