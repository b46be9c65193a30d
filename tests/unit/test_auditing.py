import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from tests.progress import Recorded, rises_to

from diffident.auditing import audit, audit_table, suspect_rows, write_audit_table
from diffident.difficulties import posterior, score_features
from diffident.label_noise import probability_wrong
from diffident.records import DifficultyTable


def make_table() -> DifficultyTable:
    return DifficultyTable(
        ids=np.array(["a", "b", "c", "d"], dtype=object),
        labels=np.array([0, 1, 0, 1]),
        difficulty=np.array([1.0, 5.0, 5.0, -2.0]),
        rank=np.array([1 / 3, 5 / 6, 5 / 6, 0.0]),
        nearest_labels=np.array([1, 1, 1, 1]),
        margin=np.array([0.5, 0.0, 4.0, 0.0]),
        label_names=("cat", "dog"),
    )


def test_order_is_hardest_first_and_ties_keep_the_tables_order():
    assert audit(make_table()).order.tolist() == [1, 2, 0, 3]


def test_suspects_are_those_that_another_class_is_nearer_to():
    assert audit(make_table()).suspect.tolist() == [True, False, True, False]


def test_suspect_rows_are_hardest_first():
    assert suspect_rows(audit(make_table())).tolist() == [2, 0]


def test_with_features_the_flipped_labels_are_the_surest_suspects():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    values = torch.randn(300, 6, generator=generator) + 6 * torch.eye(3, 6)[labels]
    labels[:15] = (labels[:15] + 1) % 3

    def blocks():
        return values.split(128)

    ids = np.array([f"s{row:03d}" for row in range(300)], dtype=object)
    suspects = audit(score_features(blocks, ids, labels.numpy()), blocks)
    assert set(suspect_rows(suspects)[:15]) == set(range(15))
    assert suspects.wrong_share.low <= suspects.wrong_share.value <= suspects.wrong_share.high
    assert abs(suspects.wrong_share.value - 0.05) < 0.02
    found = audit_table(suspects, suspect_rows(suspects))["probability_wrong"].to_pylist()
    assert found == sorted(found, reverse=True)
    shrunk = audit(score_features(blocks, ids, labels.numpy(), shrinkage=0.0), blocks)
    state = posterior.fit(blocks, labels.numpy(), 3, shrinkage=0.0)
    expected = probability_wrong(state.noise, state.candidates).numpy()
    np.testing.assert_array_equal(shrunk.probability_wrong, expected)
    assert (shrunk.probability_wrong != suspects.probability_wrong).any()


def test_table_has_names_of_given_and_nearest_class():
    suspects = audit(make_table())
    table = audit_table(suspects, suspect_rows(suspects), texts=["=cmd", "two\nlines"])
    assert table["id"].to_pylist() == ["c", "a"]
    assert table["label_name"].to_pylist() == ["cat", "cat"]
    assert table["nearest_label_name"].to_pylist() == ["dog", "dog"]
    assert table["text"].to_pylist() == ["=cmd", "two\nlines"]


def test_csv_and_parquet_hold_the_same_rows(tmp_path):
    suspects = audit(make_table())
    write_audit_table(audit_table(suspects, suspects.order), tmp_path, "hardest")
    parquet, csv = pq.read_table(tmp_path / "hardest.parquet"), pa_csv.read_csv(tmp_path / "hardest.csv")
    assert parquet["id"].to_pylist() == csv["id"].to_pylist() == ["b", "c", "a", "d"]
    assert csv["margin"].to_pylist() == [0.0, 4.0, 0.5, 0.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hardest.csv", "hardest.parquet"]


def test_no_suspects_gives_an_empty_table(tmp_path):
    suspects = audit(make_table())
    table = audit_table(suspects, np.array([], dtype=np.int64))
    write_audit_table(table, tmp_path, "suspects")
    assert pq.read_table(tmp_path / "suspects.parquet").num_rows == 0


def test_progress_counts_the_rows_of_every_pass():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    values = torch.randn(90, 6, generator=generator) + 6 * torch.eye(3, 6)[labels]
    table = score_features(lambda: values.split(40), np.arange(90).astype(str).astype(object), labels.numpy())
    seen = Recorded()
    audit(table, lambda: values.split(40), progress=seen)
    assert len(seen.passes()) >= 2
    assert all(rises_to(calls, 90) for calls in seen.passes())


def test_the_options_that_a_table_was_scored_with_are_used_again():
    values, labels = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)), torch.arange(300) % 3
    values += 2 * torch.eye(3, 6)[labels]
    given = (labels + (torch.arange(300) % 5 == 0)) % 3
    found = {}
    for robust in ("yes", "no"):
        table = score_features(lambda: [values], np.arange(300), given, method="posterior", robust=robust)
        state = posterior.fit(lambda: [values], given.numpy(), 3, robust=robust)
        found[robust] = audit(table, lambda: [values]).probability_wrong
        np.testing.assert_array_equal(found[robust], audit(table, state=state).probability_wrong)
    assert (found["yes"] != found["no"]).any()


def test_features_that_say_nothing_leave_the_share_of_wrong_labels_open():
    labels = np.arange(200) % 4
    table = score_features(lambda: [torch.ones(200, 3)], np.arange(200), labels, method="posterior")
    share = audit(table, lambda: [torch.ones(200, 3)]).wrong_share
    assert (share.low, share.high) == (0.0, 1.0)
