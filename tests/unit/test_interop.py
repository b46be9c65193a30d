"""Features and difficulty open in other tools, with every id and number."""

from dataclasses import replace

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from tests.unit.test_integrations import TABLE

from diffident.difficulties.training_dynamics import measure_epoch
from diffident.integrations.parquet import to_parquet
from diffident.records import Features
from diffident.storage.difficulty_table import write_difficulty_table
from diffident.storage.dynamics import write_epoch
from diffident.storage.features import open_features, save_features

IDS = np.array(["a", "b", "c", "é"], dtype=object)
VALUES = torch.tensor([[0.5, -1.0], [2.0, 3.25], [0.0, 1e-3], [-4.0, 65504.0]])
LABELS = torch.tensor([1, 0, 1, 2])


def by_pandas(path):
    return pd.read_parquet(path).to_dict("list")


def by_polars(path):
    return pl.read_parquet(path).to_dict(as_series=False)


def by_polars_lazily(path):
    return pl.scan_parquet(path).collect().to_dict(as_series=False)


def by_duckdb(path):
    result = duckdb.sql(f"select * from '{path}'")
    return {
        name: list(column) for name, column in zip(result.columns, zip(*result.fetchall(), strict=True), strict=True)
    }


def by_datasets(path):
    return datasets.Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))[:]


@pytest.fixture(params=[by_pandas, by_polars, by_polars_lazily, by_duckdb, by_datasets])
def read(request):
    datasets.disable_progress_bars()
    return request.param


@pytest.fixture
def store(tmp_path):
    features = Features(IDS, VALUES, LABELS, None, "e", {"noisy": np.array([1, 1, 1, 1])})
    save_features(features, tmp_path / "features")
    return tmp_path / "features"


def test_difficulty(read, tmp_path):
    write_difficulty_table(TABLE, tmp_path / "difficulty.parquet")
    columns = read(tmp_path / "difficulty.parquet")
    assert list(columns) == ["id", "label", "difficulty", "rank", "nearest_label", "margin"]
    expected = (TABLE.ids, TABLE.labels, TABLE.difficulty, TABLE.rank, TABLE.nearest_labels, TABLE.margin)
    assert list(columns.values()) == [column.tolist() for column in expected]


def test_features(read, store, tmp_path):
    columns = read(to_parquet(open_features(store), tmp_path / "features.parquet"))
    assert list(columns) == ["id", "label", "noisy", "features"]
    assert columns["id"] == IDS.tolist()
    assert columns["label"] == LABELS.tolist()
    assert np.array_equal(np.stack(columns["features"]).astype(np.float32), VALUES.numpy())


def test_index_of_the_features(read, store):
    columns = read(store / "index.parquet")
    assert columns["id"] == IDS.tolist()
    assert columns["row"] == [0, 1, 2, 3]


def test_features_of_several_shards_in_half_precision_without_labels(tmp_path):
    save_features(Features(IDS, VALUES.half(), None), tmp_path / "half")
    source = open_features(tmp_path / "half")
    twice = replace(
        source, ids=np.concatenate([IDS, [f"{name}2" for name in IDS]]), shards=(*source.shards, *source.shards)
    )
    columns = by_polars(to_parquet(twice, tmp_path / "half.parquet"))
    assert list(columns) == ["id", "features"]
    assert columns["id"] == twice.ids.tolist()
    expected = VALUES.half().float().repeat(2, 1).numpy()
    assert np.array_equal(np.array(columns["features"], dtype=np.float32), expected)


def test_dynamics_open_as_one_table(tmp_path):
    for epoch in (1, 2):
        write_epoch(tmp_path, epoch, IDS, LABELS.numpy(), measure_epoch(VALUES @ torch.ones(2, 3), LABELS))
    pattern = tmp_path / "dynamics.parquet" / "*.parquet"
    expected = [(1, 4), (2, 4)]
    assert duckdb.sql(f"select epoch, count(*) from '{pattern}' group by epoch order by epoch").fetchall() == expected
    assert pl.read_parquet(pattern).group_by("epoch").len().sort("epoch").rows() == expected
    assert len(pd.read_parquet(tmp_path / "dynamics.parquet")) == 8
