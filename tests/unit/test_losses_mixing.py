import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffident.errors import InputError, ShapeError
from diffident.losses import (
    CrossEntropy,
    DifficultyAwareLoss,
    FocalLoss,
    Mixing,
    Mixup,
    RegMixup,
    draw_mixing,
    mixed_loss,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=6):
    inputs = torch.randn(n, 3, generator=generator(1), dtype=torch.float64)
    return inputs, torch.arange(n) % 4, torch.nn.Linear(3, 4, dtype=torch.float64)


def test_a_mixture_by_hand():
    mixing = Mixing(torch.tensor([1, 0]), 0.75)
    inputs, labels = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 2])
    assert mixing.inputs(inputs, inputs[mixing.partners]).tolist() == [[1.0], [3.0]]
    log_probs = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]).log()
    losses = mixing.loss(CrossEntropy(reduction="none"), log_probs, labels, None)
    by_hand = [-0.75 * math.log(0.2) - 0.25 * math.log(0.5), -0.75 * math.log(0.1) - 0.25 * math.log(0.6)]
    assert losses.tolist() == pytest.approx(by_hand)
    assert mixing.labels(labels, labels[mixing.partners]).tolist() == [0, 2]
    assert Mixing(mixing.partners, 0.25).labels(labels, labels[mixing.partners]).tolist() == [2, 0]


def test_samples_go_before_their_mixtures():
    mixing = Mixing(torch.tensor([1, 0]), 0.25, eta=0.5)
    inputs, labels = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1])
    assert mixing.inputs(inputs, inputs[mixing.partners]).flatten().tolist() == [0.0, 4.0, 3.0, 1.0]
    calls = []

    class Recorded(torch.nn.Module):
        def forward(self, logits, labels, counts):
            calls.append((labels, counts))
            return torch.zeros(4)

    mixing.loss(Recorded(), torch.zeros(4, 2), labels, None)
    assert [labels.tolist() for labels, _ in calls] == [[0, 1, 0, 1], [0, 1, 1, 0]]
    assert [counts.tolist() for _, counts in calls] == [[1.0, 1.0, 0.5, 0.5]] * 2
    assert mixing.labels(labels, labels[mixing.partners]).tolist() == [0, 1]


def test_pixels_become_numbers_from_0_to_1():
    images = torch.tensor([[0], [255]], dtype=torch.uint8)
    mixed = Mixing(torch.tensor([1, 0]), 0.75).inputs(images, images.flip(0))
    torch.testing.assert_close(mixed, torch.tensor([[0.25], [0.75]]))


def test_numbers_of_words_cannot_be_mixed():
    words = torch.zeros(2, 5, dtype=torch.int32)
    with pytest.raises(InputError, match=r"`inputs` must be pixels or features to be mixed; got torch.int32"):
        Mixing(torch.tensor([1, 0]), 0.5).inputs(words, words)


def test_mixup_is_the_mixed_cross_entropy():
    inputs, labels, model = batch()
    mixing = draw_mixing(Mixup(), 6, generator())
    loss, logits, compared = mixed_loss(model, Mixup(), mixing, inputs, labels, None)
    share, partners = mixing.share, mixing.partners
    expected_logits = model(share * inputs + (1 - share) * inputs[partners])
    expected = share * functional.cross_entropy(expected_logits, labels)
    expected += (1 - share) * functional.cross_entropy(expected_logits, labels[partners])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, expected_logits)
    assert torch.equal(compared, labels if share >= 0.5 else labels[partners])


def test_each_sample_of_a_mixture_keeps_its_own_weight():
    # Sample 3 is left out (weight 2), sample 1 counts half and is hard (1.5).
    inputs, labels, model = batch()
    weights = torch.tensor([0.0, 1.5, 0.3, 2.0, 1.0, 0.8], dtype=torch.float64)
    criterion = DifficultyAwareLoss(doubt=0.4, reduction="none")
    mixing = draw_mixing(criterion, 6, generator(2), alpha=1.0)
    losses = mixed_loss(model, criterion, mixing, inputs, labels, weights)[0]
    mixed = mixing.share * inputs + (1 - mixing.share) * inputs[mixing.partners]
    for row, partner in enumerate(mixing.partners.tolist()):
        alone = [criterion(model(mixed[row : row + 1]), labels[[one]], weights[[one]]) for one in (row, partner)]
        torch.testing.assert_close(losses[[row]], mixing.share * alone[0] + (1 - mixing.share) * alone[1])
    out = DifficultyAwareLoss(doubt=0.4)
    assert float(mixed_loss(model, out, mixing, inputs, labels, torch.full((6,), 2.0))[0].detach()) == 0


def test_any_loss_can_mix_and_mixup_mixes_as_it_wants():
    assert draw_mixing(FocalLoss(), 6, generator(), alpha=0.0) is None
    drawn = draw_mixing(FocalLoss(), 6, generator(), alpha=20.0)
    expected = Mixing.draw(6, 20.0, generator())
    assert (drawn.share, drawn.partners.tolist()) == (expected.share, expected.partners.tolist())
    assert draw_mixing(Mixup(alpha=20.0), 6, generator(), alpha=0.1).share == expected.share


def test_regmixup_weighs_samples_and_mixtures():
    inputs, labels, model = batch()
    criterion = RegMixup(alpha=20.0, eta=3.0)
    mixing = draw_mixing(criterion, 6, generator())
    loss, logits, compared = mixed_loss(model, criterion, mixing, inputs, labels, None)
    alone = draw_mixing(Mixup(alpha=20.0), 6, generator())
    of_mixtures = mixed_loss(model, Mixup(), alone, inputs, labels, None)[0]
    torch.testing.assert_close(loss, (functional.cross_entropy(model(inputs), labels) + 3 * of_mixtures) / 4)
    torch.testing.assert_close(logits, model(inputs))
    assert torch.equal(compared, labels)


def test_regmixup_at_eta_1_is_the_mean_over_all_rows_of_the_published_code():
    inputs, labels, model = batch()
    mixing = draw_mixing(RegMixup(), 6, generator())
    loss = mixed_loss(model, RegMixup(), mixing, inputs, labels, None)[0]
    mixed = mixing.share * inputs + (1 - mixing.share) * inputs[mixing.partners]
    logits, first = model(torch.cat([inputs, mixed])), torch.cat([labels, labels])
    second = torch.cat([labels, labels[mixing.partners]])
    expected = mixing.share * functional.cross_entropy(logits, first)
    expected += (1 - mixing.share) * functional.cross_entropy(logits, second)
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ShapeError, match=r"`weights` must have shape \[6\], one per row; got \[2\]"):
        RegMixup()(model(inputs), labels, torch.ones(2))


@pytest.mark.parametrize("criterion", [Mixup(alpha=0.0), RegMixup(alpha=0.0)])
def test_without_mixing_it_is_cross_entropy(criterion):
    inputs, labels, model = batch()
    mixing = draw_mixing(criterion, 6, generator())
    assert mixing.share == 1
    loss = mixed_loss(model, criterion, mixing, inputs, labels, None)[0]
    torch.testing.assert_close(loss, functional.cross_entropy(model(inputs), labels))


@pytest.mark.parametrize(("share", "expected"), [(1.0, [0, 1]), (0.0, [1, 0])])
def test_a_masked_class_of_a_sample_without_a_share_counts_nothing(share, expected):
    logits = torch.tensor([[1.0, 2.0], [0.5, 1.5]])
    logits[(0, 1), ([1, 0] if share else [0, 1])] = -math.inf  # the class of the sample that has no share
    mixing = Mixing(torch.tensor([1, 0]), share)
    loss = mixing.loss(CrossEntropy(), logits, torch.tensor([0, 1]), None)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, torch.tensor(expected)))


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_an_alpha_that_is_none_is_refused(alpha):
    with pytest.raises(InputError, match=f"`alpha` must be at least 0; got {alpha}"):
        draw_mixing(FocalLoss(), 6, generator(), alpha=alpha)


def test_losses_that_do_not_mix_draw_nothing():
    inputs, labels, model = batch()
    random = generator()
    assert draw_mixing(FocalLoss(), 6, random) is None
    assert torch.equal(random.get_state(), generator().get_state())
    loss, logits, compared = mixed_loss(model, FocalLoss(), None, inputs, labels, None)
    torch.testing.assert_close(loss, FocalLoss()(model(inputs), labels))
    torch.testing.assert_close(logits, model(inputs))
    assert compared is labels


def test_draws_are_a_permutation_and_beta():
    random = generator(3)
    draws = [Mixing.draw(5, 20.0, random) for _ in range(400)]
    assert all(sorted(draw.partners.tolist()) == list(range(5)) for draw in draws)
    assert len({tuple(draw.partners.tolist()) for draw in draws}) > 50
    shares = np.array([draw.share for draw in draws])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.std() == pytest.approx(np.sqrt(1 / (4 * 41)), rel=0.15)
    again = Mixing.draw(5, 20.0, generator(3))
    assert (again.share, again.partners.tolist()) == (draws[0].share, draws[0].partners.tolist())


def test_parts_of_a_batch_are_mixed_within_themselves():
    mixing = Mixing.draw(7, 1.0, generator())
    for positions in torch.arange(7).tensor_split(3):
        part = mixing.rows(positions)
        assert sorted(part.partners.tolist()) == list(range(len(positions)))
        assert part.share == mixing.share
