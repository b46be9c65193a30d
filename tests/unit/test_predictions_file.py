import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diffident.errors import InputError
from diffident.records import Predictions
from diffident.storage.predictions import read_predictions, write_predictions

IDS = np.array(["a", "b"], dtype=object)
LOGITS = [[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]


def test_round_trip_is_exact_and_deterministic(tmp_path):
    predictions = Predictions(IDS, torch.tensor(LOGITS), torch.tensor([2, 0]), ("x", "y", "z"))
    for name in ("p.parquet", "q.parquet"):
        write_predictions(predictions, tmp_path / name)
    back = read_predictions(tmp_path / "p.parquet")
    assert back.ids.tolist() == ["a", "b"]
    assert torch.equal(back.logits, predictions.logits)
    assert back.labels.tolist() == [2, 0]
    assert back.label_names == ("x", "y", "z")
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


def test_columns_are_those_of_the_design(tmp_path):
    write_predictions(Predictions(IDS, torch.tensor(LOGITS)), tmp_path / "p.parquet")
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert schema.names == ["id", "logits"]
    assert schema.field("logits").type.value_type == pa.float32()
    assert schema.field("logits").type.list_size == 3
    assert read_predictions(tmp_path / "p.parquet").labels is None


def test_npz_with_logits_and_with_probs(tmp_path):
    np.savez(tmp_path / "l.npz", logits=np.array(LOGITS), labels=np.array([1, 2]), ids=np.array(["a", "b"]))
    read = read_predictions(tmp_path / "l.npz")
    assert (read.logits.tolist(), read.labels.tolist(), read.ids.tolist()) == (LOGITS, [1, 2], ["a", "b"])
    np.savez(tmp_path / "p.npz", probs=np.array([[0.25, 0.75], [0.0, 1.0]]))
    read = read_predictions(tmp_path / "p.npz")
    assert read.ids.tolist() == ["0", "1"]
    assert read.logits.tolist() == pytest.approx(np.log([[0.25, 0.75], [np.finfo(np.float32).tiny, 1]]))


def test_probabilities_that_are_called_logits(tmp_path):
    np.savez(tmp_path / "p.npz", logits=np.array([[0.25, 0.75], [0.5, 0.5]]))
    np.savez(tmp_path / "q.npz", probs=np.array([[0.25, 0.75], [0.5, 0.5]]))
    read = read_predictions(tmp_path / "p.npz", probs=True)
    assert torch.equal(read.logits, read_predictions(tmp_path / "q.npz").logits)
    np.savez(tmp_path / "l.npz", logits=np.array(LOGITS))
    with pytest.raises(InputError, match=r"`logits` must be at least 0; got -1 at row 1 of|must sum to 1"):
        read_predictions(tmp_path / "l.npz", probs=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": np.zeros(2)}, "`predictions` must have `logits` or `probs`; got scores"),
        ({"logits": np.array([[0, 1], [np.nan, 0]])}, "`logits` must be finite; got nan at row 1"),
        ({"logits": np.zeros(3)}, r"`logits` must be numbers of shape \[n, c\]"),
        ({"logits": np.zeros((0, 2))}, "at least one row"),
        ({"probs": np.array([[0.5, 0.5], [0.5, 0.6]])}, "`probs` must sum to 1 in every row; got 1.1 at row 1"),
        ({"logits": np.array([[0.25, 0.75]])}, "`logits` of .*p.npz must be logits; got rows that .*Say --probs"),
        ({"probs": np.array([[-0.5, 1.5]])}, "`probs` must be at least 0; got -0.5 at row 0"),
        ({"logits": np.zeros((2, 2)), "labels": np.zeros(3, int)}, r"`label` must have shape \[2\]"),
        ({"logits": np.zeros((2, 2)), "labels": np.zeros(2)}, "`label` must be integers; got float64"),
        ({"logits": np.zeros((2, 2)), "labels": np.array([0, 2])}, r"`label` must be in \[0, 2\); got 2 at row 1"),
        ({"logits": np.zeros((2, 2)), "ids": np.array(["a", "a"])}, "`id` must be unique; got 'a' at rows 0 and 1"),
        ({"logits": np.array([{}], dtype=object)}, "must be a readable .npz"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "p.npz")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"logits": LOGITS}, "`predictions` must have a column `id`; got logits"),
        ({"id": ["a"], "score": [1.0]}, "`logits` or `probs`; got id, score"),
        ({"id": ["a"], "logits": [1.0]}, "`logits` must be a list of numbers per row; got double"),
        ({"id": ["a", "b"], "logits": [[1.0], [1.0, 2.0]]}, "`logits` must have the same length in every row; got 2"),
        ({"id": ["a", None], "logits": LOGITS}, "`id` must have no missing entries; got null at row 1"),
        ({"id": ["a", "b"], "logits": [[1.0], [None]]}, "`logits` must have no missing numbers; got null at row 1"),
        ({"id": ["a", "b"], "label": ["x", "y"], "logits": LOGITS}, "`label` must be integers"),
    ],
)
def test_wrong_parquet(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "p.parquet")


def test_files_that_are_not_there_or_not_parquet(tmp_path):
    with pytest.raises(InputError, match="not there"):
        read_predictions(tmp_path / "p.parquet")
    for name in ("p.parquet", "p.npz"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(InputError, match="`predictions` must be"):
            read_predictions(tmp_path / name)
