import pytest
import torch

from diffident.errors import InputError
from diffident.losses import CorrectnessHistory, CorrectnessRankingLoss


def epoch(history, right):
    """Show the samples in two batches, backwards; `right` says which ones are predicted as their label, 1."""
    logits = torch.stack([torch.zeros(len(right)), torch.tensor(right) * 2.0 - 1], dim=1)
    for rows in torch.arange(len(right)).flip(0).split(2):
        history.batch_done(rows, logits[rows], torch.ones(len(rows), dtype=torch.int64))
    history.epoch_done()


def test_shares_of_right_predictions():
    history = CorrectnessHistory(3)
    assert history.shares().tolist() == [0, 0, 0]
    epoch(history, [1, 1, 0])
    assert history.shares().tolist() == [1, 1, 0]
    epoch(history, [1, 0, 0])
    assert history.shares().tolist() == [1, 0.5, 0]
    epoch(history, [1, 1, 1])
    # Counts 3, 2, 1 after 3 epochs: the least is taken off, as in the published code.
    assert history.shares().tolist() == [1, 0.5, 0]


def test_shares_stay_during_an_epoch():
    history = CorrectnessHistory(2)
    history.batch_done(torch.tensor([0]), torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert history.shares().tolist() == [0, 0]
    history.epoch_done()
    assert history.shares().tolist() == [1, 0]


def test_equal_counts_rank_nothing():
    history = CorrectnessHistory(2)
    epoch(history, [1, 1])
    assert history.shares().tolist() == [0, 0]


def test_hits_of_several_processes_are_summed():
    history = CorrectnessHistory(2)
    history.batch_done(torch.tensor([0]), torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    history.epoch_done(lambda hits: hits + torch.tensor([0, 1]))
    assert history.state_dict()["counts"].tolist() == [1, 1]
    history.epoch_done()  # all samples were another process's: what this one saw before counts no more
    assert history.state_dict()["counts"].tolist() == [1, 1]


def test_a_state_goes_on_where_it_was():
    history, other = CorrectnessHistory(3), CorrectnessHistory(3)
    epoch(history, [1, 0, 0])
    other.load_state_dict(history.state_dict())
    for one in (history, other):
        epoch(one, [0, 1, 0])
    assert other.state_dict()["epochs"] == 2
    assert torch.equal(other.shares(), history.shares())
    assert history.shares().tolist() == [0.5, 0.5, 0]
    with pytest.raises(InputError, match=r"`counts` must be those of 4 samples; got \[3\]"):
        CorrectnessHistory(4).load_state_dict(history.state_dict())


def test_a_pair_by_hand():
    """The sample that was right more often is less sure: it should be surer, by the difference of the shares."""
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    gap = torch.sigmoid(torch.tensor(2.0, dtype=torch.float64)) - 0.5
    weights = torch.tensor([0.75, 0.25])
    plain, ranked = (
        CorrectnessRankingLoss(alpha, reduction="none")(logits, torch.tensor([0, 0]), weights) for alpha in (0.0, 2.0)
    )
    torch.testing.assert_close(ranked - plain, (2 * (0.5 + gap)).expand(2))
    reverse = CorrectnessRankingLoss(reduction="none")(logits, torch.tensor([0, 0]), weights.flip(0) / 10)
    torch.testing.assert_close(reverse, plain)
