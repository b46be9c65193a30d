import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffident.errors import InputError
from diffident.records import DifficultyTable
from diffident.storage.difficulty_table import read_difficulty_table, write_difficulty_table

HOW = "Make it with: diffident score."
COLUMNS = {"id": ["a", "b"], "label": [0, 1], "difficulty": [1.0, 2.0], "rank": [0.0, 1.0]}
COLUMNS |= {"nearest_label": [0, 0], "margin": [0.0, 0.5]}


def message(path) -> str:
    with pytest.raises(InputError) as caught:
        read_difficulty_table(path)
    return str(caught.value)


def test_table_is_read_as_it_was_written(tmp_path):
    arrays = [np.array(column) for column in COLUMNS.values()]
    table = DifficultyTable(*arrays, metadata={"method": "rmd"}, label_names=("x", "y"))
    write_difficulty_table(table, tmp_path / "d.parquet")
    back = read_difficulty_table(tmp_path / "d.parquet")
    for name in ("ids", "labels", "difficulty", "rank", "nearest_labels", "margin"):
        assert getattr(back, name).tolist() == getattr(table, name).tolist()
    assert (back.metadata, back.label_names) == ({"method": "rmd"}, ("x", "y"))


def test_distrust_is_a_column_where_there_is_some(tmp_path):
    arrays = [np.array(column) for column in COLUMNS.values()]
    write_difficulty_table(DifficultyTable(*arrays, distrust=np.array([0.0, 0.75])), tmp_path / "d.parquet")
    assert read_difficulty_table(tmp_path / "d.parquet").distrust.tolist() == [0.0, 0.75]
    assert pq.read_schema(tmp_path / "d.parquet").names == [*COLUMNS, "distrust"]
    believed = DifficultyTable(*arrays, distrust=np.array([0.0, 0.75]), likely_labels=np.array([0, 1]))
    write_difficulty_table(believed, tmp_path / "both.parquet")
    assert read_difficulty_table(tmp_path / "both.parquet").likely_labels.tolist() == [0, 1]
    assert pq.read_schema(tmp_path / "both.parquet").names == [*COLUMNS, "distrust", "likely_label"]
    write_difficulty_table(DifficultyTable(*arrays), tmp_path / "none.parquet")
    assert read_difficulty_table(tmp_path / "none.parquet").distrust is None
    assert read_difficulty_table(tmp_path / "none.parquet").likely_labels is None
    assert pq.read_schema(tmp_path / "none.parquet").names == [*COLUMNS]


def test_candidates_are_columns_of_lists_where_there_are_some(tmp_path):
    arrays = [np.array(column) for column in COLUMNS.values()]
    rows = np.array([[0, 2, 1], [1, 0, 2]]), np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=np.float32)
    write_difficulty_table(
        DifficultyTable(*arrays, candidates=rows[0], candidate_probs=rows[1]), tmp_path / "d.parquet"
    )
    back = read_difficulty_table(tmp_path / "d.parquet")
    np.testing.assert_array_equal(back.candidates, rows[0], strict=True)
    np.testing.assert_array_equal(back.candidate_probs, rows[1], strict=True)
    assert pq.read_schema(tmp_path / "d.parquet").names == [*COLUMNS, "candidates", "candidate_probs"]
    assert back.take(np.array([1])).candidates.tolist() == [[1, 0, 2]]
    pq.write_table(pq.read_table(tmp_path / "d.parquet").drop_columns("candidates"), tmp_path / "one.parquet")
    assert read_difficulty_table(tmp_path / "one.parquet").candidate_probs is None


def test_rows_of_a_table_are_taken_with_all_columns():
    arrays = [np.array(column) for column in COLUMNS.values()]
    both = DifficultyTable(*arrays, {"method": "x"}, ("x", "y"), np.array([0.0, 0.75]), np.array([0, 1]))
    one = both.take(np.array([1]))
    for name, value in vars(both).items():
        if isinstance(value, np.ndarray):
            assert getattr(one, name).tolist() == value[[1]].tolist()
    assert (one.metadata, one.label_names) == ({"method": "x"}, ("x", "y"))
    assert DifficultyTable(*arrays).take(np.array([1])).likely_labels is None


MISTAKES = {
    "distrust": ({"distrust": [0.0, 1.5]}, "`distrust` must be in [0, 1]; got 1.5 at 'b' of {path}. "),
    "likely": ({"likely_label": [0, -1]}, "`likely_label` must be at least 0; got -1 at 'b' of {path}. "),
    "lacking": (
        {"rank": None},
        "`difficulty` must have the columns id, label, difficulty, rank, nearest_label, margin; {path} lacks rank. ",
    ),
    "words": ({"difficulty": ["x", "y"]}, "`difficulty` must be double; got string in {path}. "),
    "fractions": ({"label": [0.5, 1]}, "`label` must be int64; got double in {path}. "),
    "null": ({"margin": [0.0, None]}, "`margin` must be there in every row; got null at row 1 of {path}. "),
    "NaN": ({"difficulty": [0.0, np.nan]}, "`difficulty` must be finite; got nan at 'b' of {path}. "),
    "infinite": ({"margin": [0.0, np.inf]}, "`margin` must be finite; got inf at 'b' of {path}. "),
    "rank": ({"rank": [1.5, 0.0]}, "`rank` must be in [0, 1]; got 1.5 at 'a' of {path}. "),
    "negative": ({"label": [0, -1]}, "`label` must be at least 0; got -1 at 'b' of {path}. "),
    "other lengths": (
        {"candidates": [[0, 1], [1, 0]], "candidate_probs": [[1.0], [1.0]]},
        "`candidate_probs` must be as many as `candidates` in every row; got 1 for 2 in {path}. ",
    ),
    "ragged": (
        {"candidates": [[0, 1], [1]], "candidate_probs": [[0.5, 0.5], [1.0]]},
        "`candidates` must be as long in every row, and not empty; it is not in {path}. ",
    ),
    "no lists": (
        {"candidates": [0, 1], "candidate_probs": [1.0, 1.0]},
        "`candidates` must be a list in every row; got int64 in {path}. ",
    ),
    "sums": (
        {"candidates": [[0, 1], [1, 0]], "candidate_probs": [[0.5, 0.5], [0.5, 0.4]]},
        "`candidate_probs` must sum to 1; got 0.9 at 'b' of {path}. ",
    ),
    "candidate": (
        {"candidates": [[0, 1], [1, -1]], "candidate_probs": [[0.5, 0.5], [0.5, 0.5]]},
        "`candidates` must be at least 0; got -1 at 'b' of {path}. ",
    ),
    "null in a list": (
        {"candidates": [[0, 1], [1, None]], "candidate_probs": [[0.5, 0.5], [0.5, 0.5]]},
        "`candidates` must have no nulls in its lists; got one at row 1 of {path}. ",
    ),
    "null list": (
        {"candidates": [[0, 1], None], "candidate_probs": [[0.5, 0.5], [0.5, 0.5]]},
        "`candidates` must be as long in every row, and not empty; it is not in {path}. ",
    ),
    "ids twice": ({"id": ["a", "a"]}, "`id` must be unique; got 'a' 2 times in {path}. "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_says_what_where_and_how(mistake, tmp_path):
    changed, expected = MISTAKES[mistake]
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({name: column for name, column in {**COLUMNS, **changed}.items() if column}), path)
    assert message(path) == expected.format(path=path) + HOW


@pytest.mark.parametrize("note", ["[1]", "{", '{"metadata": 3}', '{"label_names": 3}'])
def test_damaged_metadata(note, tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table(COLUMNS).replace_schema_metadata({"diffident": note}), path)
    assert message(path).startswith(f"`difficulty` must have the metadata of diffident; {path}: ")


@pytest.mark.parametrize("cut", [0, 4, 100])
def test_truncated_file(cut, tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table(COLUMNS), path)
    path.write_bytes(path.read_bytes()[:cut])
    assert message(path).startswith(f"`difficulty` must be readable Parquet; {path} is not: ")


def test_no_file(tmp_path):
    assert message(tmp_path) == f"`difficulty` must be a file; got {tmp_path}, which is not there. {HOW}"
