import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from diffident.data import open_dataset
from diffident.data.columns import read_ids
from diffident.errors import InputError
from diffident.extraction import extract
from diffident.records import Features
from diffident.storage import feature_shards
from diffident.storage.features import is_features, open_features, save_features


@pytest.fixture
def store(tmp_path):
    ids = np.array(["a", "b", "c"], dtype=object)
    features = Features(ids, torch.eye(3, 2), torch.tensor([0, 1, 1]), columns={"noisy": np.array([1, 0, -1])})
    return save_features(features, tmp_path / "f").path


def message(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_features(path, **options)
    return str(caught.value)


def test_store_is_read_as_it_was_written(store):
    source = open_features(store)
    assert source.ids.tolist() == ["a", "b", "c"]
    assert source.labels.tolist() == [0, 1, 1]
    assert {name: column.tolist() for name, column in source.columns.items()} == {"noisy": [1, 0, -1]}
    assert torch.equal(source.load().values, torch.eye(3, 2))
    assert torch.equal(source.values, torch.eye(3, 2))
    assert is_features(store)


def test_others_may_read_a_store_as_they_may_any_new_file(store):
    plain = store / "plain"
    plain.touch()
    assert {path.name: path.stat().st_mode for path in store.iterdir()} == {
        path.name: plain.stat().st_mode for path in store.iterdir()
    }


def edit(store, **entries):
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, **entries}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"",
            "`FEATURES` must have a readable manifest; {0}: Expecting value: line 1 column 1 (char 0). Extract anew.",
        ),
        (b"\xff", "`FEATURES` must have a readable manifest; {0}: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"[1]", "`FEATURES` must have a readable manifest; {0} holds no JSON object. Extract anew."),
        (b"[" * 100_000, "`FEATURES` must have a readable manifest; {0}: maximum recursion depth exceeded"),
        (b'{"format_version": 1}', "`FEATURES` must have a whole manifest; {0} lacks a good encoder. Extract anew."),
    ],
)
def test_damaged_manifest(content, expected, store):
    (store / "manifest.json").write_bytes(content)
    assert message(store).startswith(expected.format(store / "manifest.json"))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("encoder", "x"),
        ("dataset", None),
        ("num_features", 1.5),
        ("num_features", True),
        ("complete", "yes"),
        ("complete", 1),
        ("shards", {}),
        ("skipped", None),
        ("label_names", "ab"),
    ],
)
def test_manifest_with_an_entry_of_another_kind(entry, value, store):
    edit(store, **{entry: value})
    assert message(store) == (
        f"`FEATURES` must have a whole manifest; {store}/manifest.json lacks a good {entry}. Extract anew."
    )


@pytest.mark.parametrize(
    "shard", ["x", {}, {"file": "a", "sha256": "b", "rows": "3"}, {"file": "../a", "sha256": "b", "rows": 3}]
)
def test_manifest_with_a_wrong_shard(shard, store):
    edit(store, shards=[shard])
    assert message(store) == (
        f"`FEATURES` must have a whole manifest; {store}/manifest.json lacks a good file, rows or sha256 of shard 0. "
        "Extract anew."
    )


def test_other_format_version(store):
    edit(store, format_version=2)
    assert message(store) == f"`FEATURES` must have format version 1; {store} has another. Extract anew."


WHOLE = {"id": ["a", "b", "c"], "label": [0, 1, 1]}
INDEXES = {
    "no id": ({"label": [0, 1, 1]}, "`FEATURES` must have ids; {0} has no column id. Extract anew."),
    "null label": (
        {**WHOLE, "label": [0, None, 1]},
        "`label` must be there in every row; got null at row 1 of {0}. Extract anew.",
    ),
    "labels of words": (
        {**WHOLE, "label": ["x", "y", "z"]},
        "`label` must be int64; got string in {0}. Extract anew.",
    ),
    "another order": (
        {**WHOLE, "shard": [0, 0, 0], "row": [2, 0, 1]},
        "`FEATURES` must have an index in the order of the shards; the column row of {0} is in another. Sort it by "
        "shard and row, or extract anew.",
    ),
    "ids twice": ({**WHOLE, "id": ["a", "b", "a"]}, "`id` must be unique; got 'a' 2 times in {0}. Extract anew."),
    "short": (
        {"id": ["a"]},
        "`FEATURES` must be whole; {0} has 1 rows, the shards 3. Extract again into a new folder.",
    ),
}


@pytest.mark.parametrize("mistake", INDEXES)
def test_wrong_index(mistake, store):
    columns, expected = INDEXES[mistake]
    pq.write_table(pa.table(columns), store / "index.parquet")
    assert message(store) == expected.format(store / "index.parquet")


def test_other_width_than_the_manifest_says(store):
    edit(store, num_features=99)
    with pytest.raises(InputError, match=r"`FEATURES` must be 99 wide, as .*; shard-00000\.safetensors is 2 wide"):
        open_features(store).load()


def test_names_may_be_left_out_of_the_manifest(store):
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["label_names"]
    (store / "manifest.json").write_text(json.dumps(manifest))
    assert open_features(store).label_names is None


def test_ids_may_be_bytes(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.eye(2), ids=np.array([b"a", "ä".encode()]))
    assert open_features(tmp_path / "f.npz").ids.tolist() == ["a", "ä"]
    np.savez(tmp_path / "f.npz", features=np.eye(2), ids=np.array([b"a", b"\xff"]))
    assert "must be text; got bytes that are no UTF-8" in message(tmp_path / "f.npz")


def test_damaged_or_missing_index(store):
    (store / "index.parquet").write_bytes((store / "index.parquet").read_bytes()[:-9])
    assert message(store).startswith(
        f"`FEATURES` must be readable Parquet; {store}/index.parquet is not: Parquet magic"
    )
    (store / "index.parquet").unlink()
    assert message(store).startswith(f"`FEATURES` must be readable Parquet; {store}/index.parquet is not: ")


@pytest.mark.parametrize("shape", [(2, 2), (3,)])
def test_shard_of_another_shape(shape, store):
    save_file({"features": torch.zeros(shape)}, store / "shard-00000.safetensors")
    with pytest.raises(InputError) as caught:
        open_features(store).load()
    assert str(caught.value) == (
        f"`FEATURES` must be whole; {store}/shard-00000.safetensors is of shape {list(shape)}, not [3, d]. "
        "Extract again into a new folder."
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64])
def test_damaged_shard(content, store):
    (store / "shard-00000.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"shard-00000\.safetensors cannot be read: .*Extract again"):
        open_features(store).load()


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"labels": [0]}, "`features` must be floats [n, d] with n and d at least 1; it holds labels at {0}. "),
        ({"features": [[1]]}, "`features` must be floats [n, d] with n and d at least 1; got int64 [1, 1] at {0}. "),
        (
            {"features": np.zeros((2, 0))},
            "`features` must be floats [n, d] with n and d at least 1; got float64 [2, 0] at {0}. ",
        ),
        (
            {"features": np.eye(2), "ids": ["a", "a"]},
            "`ids` must be unique and one per row; got [2] with 1 different ones for 2 rows at {0}. ",
        ),
        (
            {"features": np.eye(2), "ids": [["a", "b"]]},
            "`ids` must be unique and one per row; got [1, 2] with 2 different ones for 2 rows at {0}. ",
        ),
        (
            {"features": np.eye(2), "labels": [0.0, 1.0]},
            "`labels` must be integers [2]; got float64 [2] at {0}. ",
        ),
        ({"features": np.eye(2), "labels": [0, -1]}, "`labels` must be at least 0; got -1 at row 1 of {0}. Re-index."),
        (
            {"features": np.eye(2), "labels": [2, 0], "label_names": ["a", "b"]},
            "`labels` must be in [0, 2), the range of `label_names`; got 2 at row 0 of {0}. Re-index.",
        ),
    ],
)
def test_wrong_arrays(arrays, expected, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert message(path).startswith(expected.format(path))


@pytest.mark.parametrize("function", [is_features, open_features])
def test_truncated_npz(function, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, features=np.eye(3))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError) as caught:
        function(path)
    assert str(caught.value) == (
        f"`FEATURES` must be a readable .npz; {path} is not: it is no whole zip archive. "
        "Save plain numbers and strings with numpy.savez, without objects."
    )


def test_a_shard_is_compared_with_its_checksum_once(store, monkeypatch):
    digested = []
    digest = feature_shards.file_digest
    monkeypatch.setattr(feature_shards, "file_digest", lambda path: digested.append(path.name) or digest(path))
    source = open_features(store)
    assert len(list(source.blocks())) == len(list(source.blocks())) == 1
    assert digested == ["shard-00000.safetensors"]


@pytest.mark.parametrize(("count", "last"), [(3, "a:000002"), (10**6, "a:999999"), (10**6 + 1, "a:1000000")])
def test_features_and_samples_of_one_file_have_the_same_ids(count, last, tmp_path):
    np.savez(tmp_path / "a.npz", features=np.zeros((count, 1), np.float32))
    ids = open_features(tmp_path / "a.npz").ids
    assert ids[-1] == last
    assert np.array_equal(ids, read_ids(None, "a", count, "ids", "a.npz", range(count)))


def test_another_label_column_has_its_own_names_or_those_that_fit(store):
    saved = replace(
        open_features(store).load(),
        label_names=("apple", "pear"),
        columns={"coarse": np.array([0, 1, 0]), "noisy": np.array([1, 0, 1]), "wide": np.array([0, 1, 2])},
        column_names={"coarse": ("fruit", "animal")},
    )
    folder = save_features(saved, store.parent / "named").path
    names = {name: open_features(folder, label_column=name).label_names for name in ("label", *saved.columns)}
    fruits = ("apple", "pear")
    assert names == {"label": fruits, "coarse": ("fruit", "animal"), "noisy": fruits, "wide": None}
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(folder, column_names=["coarse"])
    assert message(folder) == (
        f"`FEATURES` must have a whole manifest; {folder}/manifest.json lacks good column_names. Extract anew."
    )
    assert manifest["column_names"] == {"coarse": ["fruit", "animal"]}
    assert "column_names" not in json.loads((store / "manifest.json").read_text())


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble])
def test_floats_of_other_machines_are_read(dtype, tmp_path):
    np.savez(tmp_path / "f.npz", features=np.eye(3, 2).astype(dtype), labels=np.array([0, 1, 1], dtype=">i8"))
    source = open_features(tmp_path / "f.npz")
    assert torch.equal(source.values.float(), torch.eye(3, 2))
    assert source.labels.tolist() == [0, 1, 1]


def test_a_chosen_label_column_does_not_hide_the_one_called_label(tmp_path):
    columns = {"x": [0.0, 1.0, 2.0], "label": [0, 1, 1], "noisy": [1, 1, 0]}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    source = extract(open_dataset(tmp_path / "d.parquet", label_column="noisy"), "identity", out=tmp_path / "f")
    assert source.labels.tolist() == [1, 1, 0]
    found = {name: open_features(source.path, label_column=name).labels.tolist() for name in ("label", "noisy")}
    assert found == {"label": [0, 1, 1], "noisy": [1, 1, 0]}
    assert open_dataset(source.path).label_column == "noisy"


def test_an_index_that_another_tool_wrote_is_read(store):
    table = pq.read_table(store / "index.parquet")
    kinds = [pa.large_string(), *[pa.int32()] * (table.num_columns - 1)]
    cast = pa.table({name: table[name].cast(kind) for name, kind in zip(table.column_names, kinds, strict=True)})
    pq.write_table(cast, store / "index.parquet")
    assert open_features(store).labels.tolist() == [0, 1, 1]
    assert open_features(store).labels.dtype == np.int64
