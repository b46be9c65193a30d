import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffident.data import open_dataset
from diffident.errors import InputError, UnreadableSampleError


def png(level=0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2), level).save(stream, "PNG")
    return stream.getvalue()


def write(path, metadata=None, **columns):
    """A Parquet file; class names of columns go where `datasets` puts them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (metadata or {}).items()}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(note if metadata else None), path)
    return path


def message(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **options)
    return str(caught.value)


def test_shards_and_splits_of_a_folder(tmp_path):
    data = tmp_path / "pets" / "data"
    write(data / "train-00000-of-00002.parquet", text=["a", "b"], label=[0, 1])
    write(data / "train-00001-of-00002.parquet", text=["c"], label=[0])
    write(data / "test-00000-of-00001.parquet", text=["d"], label=[1])
    train = open_dataset(f"{tmp_path / 'pets'}:train")
    assert [train[row] for row in range(3)] == ["a", "b", "c"]
    assert train.ids.tolist() == ["pets:train:000000", "pets:train:000001", "pets:train:000002"]
    assert open_dataset(f"{tmp_path / 'pets'}:test").labels.tolist() == [1]
    assert message(tmp_path / "pets") == (
        f"`DATA` must name one split of {tmp_path}/pets; it has test, train. For example: {tmp_path}/pets:test."
    )
    assert message(f"{tmp_path / 'pets'}:trian") == (
        f"`DATA` must name a split of {tmp_path}/pets; got `trian`. Did you mean `train`? Choices: test, train."
    )


def test_splits_that_are_folders(tmp_path):
    write(tmp_path / "train/0000.parquet", text=["a"])
    write(tmp_path / "train/0001.parquet", text=["b"])
    write(tmp_path / "train-clean/0000.parquet", text=["c"])
    write(tmp_path / ".cache/train/0000.parquet", text=["d"])
    assert len(open_dataset(f"{tmp_path}:train")) == 2
    assert len(open_dataset(f"{tmp_path}:train-clean")) == 1
    assert len(open_dataset(tmp_path / "train")) == 2


def test_a_missing_shard_is_noticed(tmp_path):
    write(tmp_path / "train-00001-of-00002.parquet", text=["c"])
    assert message(tmp_path) == (
        f"`DATA` must have all shards; {tmp_path} has 1 of 2 of train. Fetch the others, or name one file."
    )


def test_a_split_in_two_folders_is_refused(tmp_path):
    for config in ("plain", "raw"):
        write(tmp_path / config / "train-00000-of-00001.parquet", text=["a"])
    assert message(tmp_path) == (
        f"`DATA` must have a split in one folder; train is in {tmp_path}/plain and {tmp_path}/raw. Name one of them."
    )


def test_shards_that_differ_are_refused(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", label=[1])
    write(tmp_path / "train-00001-of-00002.parquet", label=["one"])
    assert message(tmp_path).startswith(f"`DATA` must have shards of one kind; {tmp_path}: ")


def test_class_names_serve_other_label_columns(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        {"label": ["cat", "dog"]},
        text=["a", "b"],
        label=[0, 1],
        noisy=[1, 1],
        said=["dog", "cat"],
        votes=[[1, 2], [3]],
    )
    dataset = open_dataset(path)
    assert dataset.label_names == ("cat", "dog")
    assert {name: column.tolist() for name, column in dataset.columns.items()} == {"noisy": [1, 1], "said": [1, 0]}
    assert open_dataset(path, label_column="noisy").label_names == ("cat", "dog")
    assert open_dataset(path, label_column="said").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "labels", [["b", "a", "b", "c"], [3, 0, 3, 1], [True, False, True, True], [1.0, 0.0, 1.0, 2.0]]
)
def test_labels_are_those_of_the_same_rows_as_json(labels, tmp_path):
    write(tmp_path / "d.parquet", x=[0.5, 1, 2, 3], label=labels)
    lines = [json.dumps({"x": 1, "label": label}) for label in labels]
    (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found, same = open_dataset(tmp_path / "d.parquet"), open_dataset(tmp_path / "d.jsonl")
    assert (found.labels.tolist(), found.label_names) == (same.labels.tolist(), same.label_names)
    assert found[1].tolist() == [1.0]


def test_the_first_row_of_a_wrong_label_is_named(tmp_path):
    write(tmp_path / "d.parquet", x=[0.5, 1, 2, 3], label=["a", "a", None, None])
    assert "got none at row 2 of" in message(tmp_path / "d.parquet")
    write(tmp_path / "d.parquet", x=[0.5, 1, 2, 3], label=[7, -3, 7, -3])
    assert "got -3 at row 1 of" in message(tmp_path / "d.parquet")


def test_labels_kept_back_are_no_labels(tmp_path):
    path = write(tmp_path / "a.parquet", {"label": ["cat", "dog"]}, text=["a", "b"], label=[-1, -1])
    assert open_dataset(path).labels is None


def test_images_as_bytes_or_as_paths(tmp_path):
    (tmp_path / "one.png").write_bytes(png(1))
    image = [{"bytes": None, "path": "one.png"}, {"bytes": png(2), "path": "gone.png"}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    both = open_dataset(write(tmp_path / "a.parquet", image=pa.array(image, kind)))
    assert [both[row].getpixel((0, 0)) for row in range(2)] == [1, 2]
    paths = pa.array([{"path": str(tmp_path / "one.png")}], pa.struct({"path": pa.string()}))
    assert open_dataset(write(tmp_path / "b.parquet", image=paths))[0].getpixel((0, 0)) == 1
    plain = open_dataset(write(tmp_path / "c.parquet", img=pa.array([png(3)], pa.large_binary())))
    assert pickle.loads(pickle.dumps(plain))[0].getpixel((0, 0)) == 3


def test_image_bytes_are_not_copied(tmp_path):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    image = pa.array([{"bytes": b"x" * 100_000, "path": None}] * 100, kind)
    path = write(tmp_path / "a.parquet", image=image, label=list(range(100)))
    before = pa.total_allocated_bytes()
    dataset = open_dataset(path)
    assert 10_000_000 <= pa.total_allocated_bytes() - before < 11_000_000
    half = dataset.select(np.arange(50))
    assert pa.total_allocated_bytes() - before < 11_000_000
    assert half.read.read.contents is dataset.read.contents
    with pytest.raises(UnreadableSampleError, match="sample `a:000049` must be a readable image"):
        half[49]


def test_other_columns_are_part_of_the_fingerprint(tmp_path):
    path = write(tmp_path / "a.parquet", text=["a"], title=["b"], label=[0], other=[1])
    before = open_dataset(path).fingerprint
    assert open_dataset(path, text_column="title").fingerprint != before
    assert open_dataset(path, label_column="other").fingerprint == before  # features do not depend on labels


NOT_WHOLE = {
    "struct label": (
        {"text": ["a"], "label": [{"a": 1}]},
        "`label` must be a number or a name; got a dict at row 0 of {path}. Choose another column.",
    ),
    "list label": (
        {"text": ["a"], "label": [[1]]},
        "`label` must be a number or a name; got a list at row 0 of {path}. Choose another column.",
    ),
    "list text": (
        {"text": [["a"]]},
        "`text` must have a text in every row; got a list at row 0 of {path}. Fill it in.",
    ),
    "null text": (
        {"text": ["", None]},
        "`text` must have a text in every row; got none at row 1 of {path}. Fill it in.",
    ),
    "null label": (
        {"text": ["a", "b"], "label": [0, None]},
        "`label` must have a label in every row; got none at row 1 of {path}. Fill it in, or remove the row.",
    ),
    "null image": (
        {"image": [b"x", None]},
        "`image` must have an image in every row; got none at row 1 of {path}. Add it.",
    ),
    "image of numbers": (
        {"image": [[1, 2]]},
        "`image` must hold images or their paths; got list<element: int64> in {path}. Choose another.",
    ),
    "image of a struct": (
        {"image": [{"a": 1}]},
        "`image` must hold images or their paths; got struct<a: int64> in {path}. Choose another.",
    ),
    "bytes as numbers": (
        {"image": [{"bytes": [1]}]},
        "`image` must hold images or their paths; got struct<bytes: list<element: int64>> in {path}. Choose another.",
    ),
    "no rows": (
        {"text": pa.array([], pa.string())},
        "`DATA` must hold samples; {path} has none. Choose another file or split.",
    ),
    "dates": (
        {"text": ["a"], "label": pa.array([0], pa.timestamp("s"))},
        "`label` must be a number or a name; got a datetime at row 0 of {path}. Choose another column.",
    ),
}


@pytest.mark.parametrize("mistake", NOT_WHOLE)
def test_mistake_in_parquet_says_what_where_and_how(mistake, tmp_path):
    columns, expected = NOT_WHOLE[mistake]
    path = write(tmp_path / "a.parquet", **columns)
    assert message(path) == expected.format(path=path)


def test_a_text_file_given_as_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("text,label\na,0\n" * 10)
    assert message(path).startswith(f"`DATA` must be readable Parquet; {path} is not: Parquet magic bytes not found")


def test_a_damaged_note_of_class_names(tmp_path):
    table = pa.table({"text": ["a"]}).replace_schema_metadata({"huggingface": "[1]"})
    pq.write_table(table, tmp_path / "a.parquet")
    assert message(tmp_path / "a.parquet") == (
        f"`huggingface` in the schema's metadata must be as datasets writes it; {tmp_path}/a.parquet: 'list' object "
        "has no attribute 'get'. Write the file anew."
    )


def test_text_that_is_no_utf8_is_refused(tmp_path):
    text = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))
    path = write(tmp_path / "a.parquet", text=text)
    assert message(path).startswith(f"`DATA` must be readable Parquet; {path} is not: ")
    assert "UTF8" in message(path)
