import time

import numpy as np
import pytest

from diffident.errors import IdMismatchError
from diffident.records import positions_of

IDS = np.array(["a", "b", "c", "d"], dtype=object)


def find(ids, wanted):
    return positions_of(np.array(ids, dtype=object), np.array(wanted, dtype=object), what="the run", where="the table")


@pytest.mark.parametrize("wanted", [["a", "b", "c", "d"], ["d", "b"], ["c", "c"], []])
def test_positions_lead_back_to_the_ids(wanted):
    positions = find(IDS, wanted)
    assert positions.dtype == np.int64
    assert IDS[positions].tolist() == wanted


def test_numbers_are_found_as_text():
    assert find(["1", "2"], [2, 1]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("ids", "wanted", "expected"),
    [
        (["a", "a"], ["a", "a"], "`ids` of the table must be unique; 1 occur twice: 'a'. Remove one of each."),
        (
            ["a", "b"],
            ["a", "x", "y", "z", "w"],
            "4 of 5 ids of the run are not in the table: first 'x', 'y', 'z'. Make the table from the same dataset.",
        ),
        (
            ["a", "b"],
            ["b", "x"],
            "1 of 2 ids of the run are not in the table: first 'x'. Make the table from the same dataset.",
        ),
    ],
)
def test_wrong_join_is_named(ids, wanted, expected):
    with pytest.raises(IdMismatchError) as caught:
        find(ids, wanted)
    assert str(caught.value) == expected


@pytest.mark.slow
def test_a_million_ids_are_joined_in_seconds():
    ids = np.array([f"train:{row:07d}" for row in range(1_000_000)], dtype=object)
    order = np.random.default_rng(0).permutation(len(ids))
    started = time.perf_counter()
    assert np.array_equal(positions_of(ids, ids[order], what="a", where="b"), order)
    assert time.perf_counter() - started < 10
