import math
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests import oracles_difficulty as oracle

from diffident.difficulties import open_method
from diffident.difficulties.training_dynamics import TrainingDynamics, measure_epoch
from diffident.errors import IdMismatchError, InputError
from diffident.storage.dynamics import DYNAMICS, read_dynamics, write_epoch

IDS = np.array(["a", "b", "c"], dtype=object)
LABELS = np.array([0, 1, 2])
# Sample a is learnt and forgotten once, b is never right, c is always right.
LOGITS = [
    torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 3.0], [0.0, 0.0, 5.0]]),
    torch.tensor([[0.0, 1.0, 0.0], [4.0, 0.0, 1.0], [0.0, 0.0, 5.0]]),
    torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.0, 1.0], [0.0, 0.0, 5.0]]),
]


@pytest.fixture
def folder(tmp_path):
    for epoch, logits in enumerate(LOGITS, start=1):
        write_epoch(tmp_path, epoch, IDS, LABELS, measure_epoch(logits, torch.from_numpy(LABELS)))
    return tmp_path


def score(dynamics, labels=LABELS, **options):
    method = open_method("training-dynamics")
    state = method.fit(lambda: iter(()), labels, 3, dynamics=dynamics, **options)
    return method.score(state, lambda: iter(()), labels)


def test_an_epoch_by_hand():
    seen = measure_epoch(torch.tensor([[math.log(3), 0.0], [1.0, 1.0]]), torch.tensor([1, 1]))
    assert seen.predictions.tolist() == [0, 1]  # the label wins ties
    assert seen.margins.tolist() == pytest.approx([-math.log(3), 0])
    assert seen.label_probs.tolist() == pytest.approx([0.25, 0.5])
    assert seen.el2n.tolist() == pytest.approx([math.hypot(0.75, 0.75), math.hypot(0.5, 0.5)])


def test_half_precision_logits_are_measured_in_float32():
    seen = measure_epoch(torch.tensor([[300.0, 0.0]], dtype=torch.float16), torch.tensor([1]))
    assert seen.margins.dtype == torch.float32
    assert seen.el2n.tolist() == pytest.approx([math.sqrt(2)])


def test_area_under_the_margin_by_hand(folder):
    scores = score(read_dynamics(folder))
    assert scores.difficulty.tolist() == pytest.approx([-4 / 3, 9 / 3, -5])
    assert scores.nearest.tolist() == [0, 0, 2]
    assert scores.margin.tolist() == pytest.approx([0, 3, 0])


def test_forgetting_by_hand_and_by_loops(folder):
    dynamics = read_dynamics(folder)
    scores = score(dynamics, statistic="forgetting")
    assert scores.difficulty.tolist() == [1, 3, 0]
    generator = np.random.default_rng(0)
    predictions = generator.integers(0, 3, (50, 12))
    labels = generator.integers(0, 3, 50)
    numbers = np.zeros((50, 12), dtype=np.float32)
    many = TrainingDynamics(np.arange(50).astype(str).astype(object), labels, predictions, *[numbers] * 3)
    expected = [oracle.forgetting(list(row == label)) for row, label in zip(predictions, labels, strict=True)]
    assert score(many, labels, statistic="forgetting").difficulty.tolist() == expected


def test_the_most_predicted_other_class_is_nearest():
    predictions = np.array([[1, 2, 2, 0, 0, 0], [1, 2, 2, 1, 0, 0]])
    shape = np.full((2, 6), -1.0, dtype=np.float32)
    dynamics = TrainingDynamics(IDS[:2], np.array([0, 0]), predictions, shape, shape, shape)
    assert score(dynamics, np.array([0, 0])).nearest.tolist() == [2, 1]


def test_el2n_of_the_first_epochs(folder):
    dynamics = read_dynamics(folder).epochs(2)
    scores = score(dynamics, statistic="el2n")
    rows = [torch.softmax(logits.double(), dim=1) - torch.eye(3, dtype=torch.float64) for logits in LOGITS[:2]]
    np.testing.assert_allclose(scores.difficulty, torch.stack([row.norm(dim=1) for row in rows]).mean(dim=0), rtol=1e-6)


def test_the_file_has_the_columns_that_it_should(folder):
    table = pq.read_table(folder / DYNAMICS)
    assert table.num_rows == 9
    assert table.column_names == ["id", "epoch", "label", "prediction", "correct", "margin", "p_label", "el2n"]
    assert table.filter(table["id"].combine_chunks().to_numpy(False) == "a")["correct"].to_pylist() == [
        True,
        False,
        True,
    ]


def test_one_file_of_all_epochs_reads_the_same(folder, tmp_path):
    table = pq.read_table(folder / DYNAMICS)
    shuffled = table.take(np.random.default_rng(0).permutation(9)).drop_columns("correct")
    pq.write_table(shuffled, tmp_path / "one.parquet")
    one, parts = read_dynamics(tmp_path / "one.parquet").aligned(IDS), read_dynamics(folder / DYNAMICS)
    for name in ("ids", "labels", "predictions", "margins", "label_probs", "el2n"):
        np.testing.assert_array_equal(getattr(one, name), getattr(parts, name))


def test_an_epoch_written_again_is_replaced_by_the_same_bytes(folder):
    file = folder / DYNAMICS / "epoch-00002.parquet"
    before = file.read_bytes()
    write_epoch(folder, 2, IDS, LABELS, measure_epoch(LOGITS[1], torch.from_numpy(LABELS)))
    assert file.read_bytes() == before
    assert len(list((folder / DYNAMICS).iterdir())) == 3


def test_epochs_are_joined_by_id(folder):
    order = [2, 0, 1]
    write_epoch(folder, 2, IDS[order], LABELS[order], measure_epoch(LOGITS[1][order], torch.from_numpy(LABELS[order])))
    assert score(read_dynamics(folder)).difficulty.tolist() == pytest.approx([-4 / 3, 3, -5])


def test_broken_dynamics_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=rf"`dynamics` must be a run with {DYNAMICS}; got .*nowhere"):
        read_dynamics(tmp_path / "nowhere")
    seen = measure_epoch(LOGITS[0][:2], torch.from_numpy(LABELS[:2]))
    write_epoch(folder, 3, IDS[:2], LABELS[:2], seen)
    with pytest.raises(IdMismatchError, match="epoch 3 has 2, not 3"):
        read_dynamics(folder)
    write_epoch(folder, 3, np.array(["a", "b", "x"]), LABELS, measure_epoch(LOGITS[2], torch.from_numpy(LABELS)))
    with pytest.raises(IdMismatchError, match="first 'c'"):
        read_dynamics(folder)
    (folder / DYNAMICS / "epoch-00002.parquet").unlink()
    with pytest.raises(InputError, match="`epoch` must go up from 1 by 1; got 3 after 1"):
        read_dynamics(folder)
    pq.write_table(pq.read_table(folder / DYNAMICS).drop_columns("margin"), tmp_path / "lacks.parquet")
    with pytest.raises(InputError, match=r"lacks margin\."):
        read_dynamics(tmp_path / "lacks.parquet")
    with pytest.raises(InputError, match="`epoch` must be at least 1; got 0"):
        write_epoch(folder, 0, IDS, LABELS, seen)
    with pytest.raises(InputError, match="`predictions` must have one entry per id; got 2 for 3"):
        write_epoch(folder, 1, IDS, LABELS, seen)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("label", [0.5, 1, 2], "`label` must be int64; got double in "),
        ("label", ["a", "b", "c"], "`label` must be int64; got string in "),
        ("label", [0, None, 2], "`label` must be there in every row; got null at row 1 of "),
        ("label", [0, 2, 2], "`label` must be 1, as in epoch 1; got 2 at 'b' in epoch 2 of "),
        ("margin", ["much", "1", "2"], "`margin` must be float; got string in "),
        ("id", [None, "b", "c"], "`id` must be there in every row; got null at row 0 of "),
    ],
)
def test_a_column_of_another_kind_is_named(folder, column, values, words):
    file = folder / DYNAMICS / "epoch-00002.parquet"
    table = pq.ParquetFile(file).read()
    pq.write_table(table.set_column(table.column_names.index(column), column, [values]), file)
    with pytest.raises(InputError, match=f"^{re.escape(words)}"):
        read_dynamics(folder)


def test_labels_below_0_are_refused(tmp_path):
    write_epoch(tmp_path, 1, IDS, LABELS - 1, measure_epoch(LOGITS[0], torch.from_numpy(LABELS)))
    with pytest.raises(InputError, match="`label` must be at least 0; got -1 at 'a' in epoch 1 of "):
        read_dynamics(tmp_path)


def test_numbers_as_ids_are_read_as_texts(folder, tmp_path):
    table = pq.read_table(folder / DYNAMICS)
    pq.write_table(table.set_column(0, "id", [[1, 2, 3] * 3]), tmp_path / "one.parquet")
    assert read_dynamics(tmp_path / "one.parquet").ids.tolist() == ["1", "2", "3"]


def test_other_samples_labels_and_broken_numbers_are_refused(folder):
    dynamics = read_dynamics(folder)
    with pytest.raises(InputError, match=r"got 1, not 0, at row 0\. Score the labels of the run"):
        score(dynamics, np.array([1, 1, 2]))
    with pytest.raises(InputError, match="`dynamics` must have one row per label; got 3 for 2"):
        score(dynamics, LABELS[:2])
    with pytest.raises(IdMismatchError, match="first 'z'"):
        dynamics.aligned(np.array(["z"]))
    dynamics.margins[1, 0] = float("nan")
    with pytest.raises(InputError, match="`margins` must be finite; got NaN or infinity at row 1"):
        score(dynamics)
    method = open_method("training-dynamics")
    state = method.fit(lambda: iter(()), LABELS, 3, dynamics=read_dynamics(folder))
    with pytest.raises(InputError, match="`fitted` must be true"):
        method.score(state, lambda: iter(()), LABELS, fitted=False)
    with pytest.raises(InputError, match="`count` must be a whole number, at least 1; got 0"):
        read_dynamics(folder).epochs(0)
