import base64
import io

import numpy as np
import pytest
from making import make_blobs, make_images, make_suspects, make_table
from PIL import Image

from diffident.auditing import audit, suspect_rows
from diffident.data.dataset import Dataset
from diffident.errors import UnreadableSampleError
from diffident.report.neighbours import find_neighbours
from diffident.report.page_samples import (
    fit_texts,
    neighbour_columns,
    sample_columns,
    sample_contents,
)
from diffident.report.samples import (
    Neighbours,
    describe_sample,
    importance,
    make_pictures,
    page_rows,
    with_neighbours,
)


def test_suspects_and_the_hardest_matter_most_by_turns():
    nearest = np.zeros(40, dtype=np.int64)
    nearest[[20, 21, 22]] = 1
    order = importance(audit(make_table([0] * 40, nearest, np.arange(40))))
    assert sorted(order.tolist()) == list(range(40))
    assert order[:11].tolist() == [22, 39, 21, 38, 20, 37, 36, 35, 34, 33, 32]
    assert order[11] == 0  # in the 16th place, of which four were for suspects that there are not


def test_a_small_table_is_on_the_page_whole():
    assert page_rows(np.array([2, 0, 1]), None, 3).tolist() == [0, 1, 2]


def test_of_a_large_table_the_most_important_rows_and_their_neighbours_are_on_the_page():
    order = np.arange(100)[::-1]
    neighbours = Neighbours(np.array([99]), np.array([[5, -1]]), np.array([[7, 5]]))
    assert page_rows(order, neighbours, 8).tolist() == [5, 7, 94, 95, 96, 97, 98, 99]


def test_neighbours_are_the_nearest_of_each_class_and_never_the_sample_itself():
    values, labels, blocks = make_blobs(90)
    table = make_suspects(90).table
    rows = np.array([40, 0, 3])
    found = find_neighbours(blocks, table, rows, num_neighbours=2)
    units = (values / values.norm(dim=1, keepdim=True)).numpy().astype(np.float64)
    for number, row in enumerate(rows):
        suspect = table.nearest_labels[row] != labels[row]
        asked = [(labels[row], found.given[number])]
        asked += [(table.nearest_labels[row], found.nearest[number])] if suspect else []
        for wanted, got in asked:
            candidates = [r for r in range(90) if labels[r] == wanted and r != row]
            assert got.tolist() == sorted(candidates, key=lambda r: -units[r] @ units[row])[:2]
    assert found.nearest[0].tolist() == [-1, -1]  # row 40 is nearest to its own class


def test_a_class_with_too_few_samples_has_fewer_neighbours():
    values, _, _ = make_blobs(4)
    table = make_table([0, 0, 1, 2], [1, 0, 1, 2], [3.0, 2.0, 1.0, 0.0])
    found = find_neighbours(lambda: values.split(3), table, np.array([0, 2]), num_neighbours=3)
    assert found.given.tolist() == [[1, -1, -1], [-1, -1, -1]]
    assert found.nearest.tolist() == [[2, -1, -1], [-1, -1, -1]]


def test_thumbnails_keep_to_the_budget_and_the_most_important_come_first():
    images = make_images([str(number) for number in range(50)], size=(300, 200))
    one = make_pictures(images, lambda row: row, [3], most=9, budget=10**9)
    assert list(one.thumbnails) == [3]
    with Image.open(io.BytesIO(base64.b64decode(one.thumbnails[3]))) as image:
        assert (image.format, image.size) == ("WEBP", (128, 85))
    with Image.open(io.BytesIO(base64.b64decode(one.large[3]))) as image:
        assert image.size == (300, 200)
    budget = 6 * len(one.thumbnails[3])
    several = make_pictures(images, lambda row: row, range(50), most=50, budget=budget, most_large=0)
    assert 0 < len(several.thumbnails) < 50
    assert sum(map(len, several.thumbnails.values())) <= budget
    assert list(make_pictures(images, lambda row: row, [4, 4, 1], most=50, budget=10**9).thumbnails) == [4, 1]
    assert len(make_pictures(images, lambda row: row, range(50), most=7, budget=10**9).thumbnails) == 7


def test_an_unreadable_picture_is_named_and_left_out():
    def read(position):
        if position == 1:
            raise UnreadableSampleError("sample `b` must be a readable image; it is empty. Replace or remove it.")
        return Image.new("L", (4, 4))

    dataset = Dataset("d", "image", np.array(["a", "b"], dtype=object), None, read, "f")
    pictures = make_pictures(dataset, lambda row: row, [0, 1], most=9, budget=10**6)
    assert list(pictures.thumbnails) == [0]
    assert pictures.unreadable == ("sample `b` must be a readable image; it is empty. Replace or remove it.",)


def test_who_is_shown_is_followed_by_its_neighbours():
    neighbours = Neighbours(np.array([5]), np.array([[7, -1]]), np.array([[9, -1]]))
    assert list(with_neighbours(np.array([5, 6]), neighbours)) == [5, 7, 9, 6]


@pytest.mark.parametrize(
    ("sample", "shown"),
    [
        ("hello", "hello"),
        ("hello world", "hello wor…"),
        (np.array([1.0, 0.25], dtype=np.float32), "1  0.25"),
    ],
)
def test_cards_say_what_a_sample_is(sample, shown):
    assert describe_sample(sample, 10) == shown


def test_whole_texts_are_kept_for_the_most_important_within_the_budget():
    texts = ["a" * 400, "b" * 400, "short"]
    dataset = Dataset("d", "text", np.array(["0", "1", "2"], dtype=object), None, lambda p: texts[p], "f")
    rows = np.arange(3)
    short, whole = sample_contents(dataset, rows, rows, np.array([1, 0, 2]), budget=600)
    assert short[2] == "short"
    assert all(len(text) == 200 for text in short[:2])
    assert whole == {1: "b" * 400}


def test_ids_are_cut_only_where_all_together_are_too_long():
    assert fit_texts(["a" * 10_000, "b"]) == ["a" * 10_000, "b"]
    cut = fit_texts(["a" * 5_000_000, "a" * 5_000_000, "b"])
    assert [len(text) for text in cut] == [164, 164, 1]
    assert cut[0] != cut[1]


def test_columns_are_of_the_rows_asked_for():
    suspects = make_suspects(30)
    rows = suspect_rows(suspects)[:2]
    columns = sample_columns(suspects, rows)
    assert columns["row"] == rows.tolist()
    assert columns["id"] == [f"s{row:05d}" for row in rows]
    assert columns["label"] == suspects.table.labels[rows].tolist()
    assert columns["wrong"] == [round(p, 4) for p in suspects.probability_wrong[rows].tolist()]


def test_neighbours_that_are_not_on_the_page_are_left_out():
    neighbours = Neighbours(np.array([5, 6]), np.array([[7, 8], [5, -1]]), np.array([[-1, -1], [8, 7]]))
    columns = neighbour_columns(neighbours, np.array([5, 7]))
    assert columns == {"row": [0], "given": [[1]], "nearest": [[]]}
