from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tests.progress import Recorded, rises_to
from tests.unit.test_gaussian import make_data

from diffident.difficulties import score_combined, score_features
from diffident.difficulties.combination import _mean_rank, agreement, stacked
from diffident.errors import IdMismatchError, InputError
from diffident.records import DifficultyTable


@dataclass
class Source:
    ids: np.ndarray
    labels: np.ndarray | None
    values: torch.Tensor
    encoder: str = "e"
    label_names: tuple[str, ...] | None = None
    size: int = 7

    def blocks(self):
        return iter(self.values.split(self.size))


def make_source(seed=0, order=None, **changes):
    values, labels = make_data(seed=seed)
    ids = np.array([f"s{row}" for row in range(len(values))], dtype=object)
    order = np.arange(len(ids)) if order is None else order
    fields = {"ids": ids[order], "labels": labels.numpy()[order], "values": values[order], "encoder": f"e{seed}"}
    return Source(**{**fields, **changes})


def table(difficulty, nearest, margin, labels, encoder="e"):
    numbers = np.asarray(difficulty, dtype=float)
    rank = np.argsort(np.argsort(numbers)) / (len(numbers) - 1)
    ids = np.arange(len(numbers)).astype(str).astype(object)
    return DifficultyTable(
        ids, np.array(labels), numbers, rank, np.array(nearest), np.array(margin), {"encoder": encoder}
    )


@pytest.mark.parametrize("combine", ["mean-rank", "stack"])
def test_features_are_joined_by_id(combine):
    order = np.random.default_rng(0).permutation(120)
    one, other = make_source(), make_source(seed=1)
    expected = score_combined([one, other], combine=combine)
    joined = score_combined([one, make_source(seed=1, order=order, size=50)], combine=combine)
    assert joined.ids.tolist() == one.ids.tolist()
    np.testing.assert_allclose(joined.difficulty, expected.difficulty, atol=1e-8)
    np.testing.assert_array_equal(joined.nearest_labels, expected.nearest_labels)
    assert joined.metadata["agreement"][0]["spearman"] == pytest.approx(expected.metadata["agreement"][0]["spearman"])


def test_mean_rank_is_the_mean_of_the_ranks():
    sources = [make_source(seed=seed) for seed in range(3)]
    tables = [score_features(one.blocks, one.ids, one.labels, encoder=one.encoder) for one in sources]
    combined = score_combined(sources)
    np.testing.assert_allclose(combined.difficulty, np.mean([one.rank for one in tables], axis=0))
    margins = np.mean([one.margin / one.difficulty.std() for one in tables], axis=0)
    changed = combined.nearest_labels != combined.labels
    np.testing.assert_allclose(combined.margin, np.where(changed, margins, 0))
    np.testing.assert_array_equal(combined.margin > 0, changed)
    for row in range(120):
        named = [one.nearest_labels[row] for one in tables]
        most = max(named.count(label) for label in named)
        winners = {label for label in named if named.count(label) == most}
        own = combined.labels[row]
        assert combined.nearest_labels[row] == (own if own in winners else min(winners))
    assert combined.metadata["encoder"] == "e0 + e1 + e2"
    assert [one["encoder"] for one in combined.metadata["sources"]] == ["e0", "e1", "e2"]
    assert combined.metadata["combine"] == "mean-rank"


@pytest.mark.parametrize("combine", ["mean-rank", "stack"])
def test_what_is_said_of_the_labels_is_not_lost(combine):
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    given = np.where(np.arange(300) < 60, (labels + 1) % 3, labels)  # a fifth is wrong
    sources = []
    for number in range(2):
        values = generator.normal(size=(300, 4)) + 6 * np.eye(3, 4)[labels]
        sources.append(make_source(labels=given, values=torch.from_numpy(values), encoder=f"e{number}"))
        sources[-1].ids = np.arange(300).astype(str).astype(object)
    combined = score_combined(sources, combine=combine, method="posterior")
    assert combined.distrust is not None
    np.testing.assert_array_equal(np.flatnonzero(combined.distrust > 0.2), np.arange(60))
    assert combined.metadata["num_distrusted"] == 60
    if combine == "mean-rank":
        parts = [
            score_features(one.blocks, one.ids, given, method="posterior", encoder=one.encoder).distrust
            for one in sources
        ]
        np.testing.assert_allclose(combined.distrust, np.mean(parts, axis=0), atol=1e-9)
    assert combined.likely_labels is not None
    np.testing.assert_array_equal(combined.likely_labels[:60], labels[:60])
    assert score_combined(sources, combine=combine).distrust is None
    assert score_combined(sources, combine=combine).likely_labels is None


def test_candidates_are_those_of_every_source_and_their_probabilities_the_mean():
    beliefs = ([[0, 1]] * 2, [[0.75, 0.25]] * 2), ([[0, 2]] * 2, [[0.5, 0.5]] * 2)
    tables = [
        replace(
            table([0, 1], [0, 0], [0.0, 1.0], [0, 0]),
            distrust=np.zeros(2),
            likely_labels=np.zeros(2, dtype=np.int64),
            candidates=np.array(classes),
            candidate_probs=np.array(probs, dtype=np.float32),
        )
        for classes, probs in beliefs
    ]
    for one in tables:
        one.metadata.update(method="posterior", num_samples=2, num_classes=3)
    both = _mean_rank(tables, "both")
    assert both.candidates.tolist() == [[0, 1, 0, 2]] * 2
    assert both.candidate_probs.tolist() == [[0.375, 0.125, 0.25, 0.25]] * 2
    older = [replace(one, candidates=None, candidate_probs=None) for one in tables]
    assert _mean_rank(older, "both").candidates is None


def test_the_likely_label_is_that_of_the_source_that_distrusts_most():
    beliefs = ([0.9, 0.1, 0.0], [1, 0, 0]), ([0.0, 0.8, 0.0], [0, 2, 0])
    tables = [
        replace(
            table([0, 1, 2], [0, 0, 0], [0.0] * 3, [0, 0, 0]),
            distrust=np.array(distrust),
            likely_labels=np.array(likely),
        )
        for distrust, likely in beliefs
    ]
    for one in tables:
        one.metadata.update(method="posterior", num_samples=3, num_classes=3)
    assert _mean_rank(tables, "both").likely_labels.tolist() == [1, 2, 0]


def test_agreement_by_hand():
    one = table([1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], "a")
    other = table([1, 2, 4, 3], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], "b")
    constant = table([1, 1, 1, 1], [0] * 4, [0.0] * 4, [0] * 4, "c")
    first, second, _ = agreement([one, other, constant])
    assert first == {
        "sources": [1, 2],
        "encoders": ["a", "b"],
        "spearman": pytest.approx(0.8),
        "jaccard_suspects": 1 / 3,
    }
    assert second["spearman"] is None
    assert second["jaccard_suspects"] == 0
    assert agreement([constant, constant])[0]["jaccard_suspects"] is None


def test_stacked_features_have_one_variance_each():
    one, other = torch.randn(10, 2) * 100, torch.randn(10, 3, dtype=torch.float64) + 1000
    blocks = list(stacked([lambda: iter(one.split(4)), lambda: iter(other.split(3))])())
    assert [len(block) for block in blocks] == [3, 1, 2, 2, 1, 1]
    values = torch.cat(blocks)
    assert values.shape == (10, 5)
    for columns in (values[:, :2], values[:, 2:]):
        assert float(columns.var(dim=0, correction=0).sum()) == pytest.approx(1, rel=1e-5)
    whole = one.var(dim=0, correction=0).sum().sqrt()
    torch.testing.assert_close(values[:, :2].float(), one / whole)


def test_constant_features_can_be_stacked():
    blocks = stacked([lambda: iter([torch.ones(3, 2, dtype=torch.float16)]), lambda: iter([torch.eye(3)])])
    assert torch.cat(list(blocks()))[:, :2].tolist() == [[1, 1]] * 3


def test_stack_scores_all_features_at_once():
    sources = [make_source(), make_source(seed=1)]
    combined = score_combined(sources, combine="stack", shrinkage=0.0)
    values = torch.cat([source.values for source in sources], dim=1)
    whole = score_features(lambda: iter([values]), sources[0].ids, sources[0].labels, shrinkage=0.0)
    np.testing.assert_allclose(combined.difficulty, whole.difficulty, atol=1e-7)  # no scale matters without shrinkage
    assert combined.metadata["num_features"] == 12
    assert combined.metadata["combine"] == "stack"


def test_other_ids_and_labels_are_named():
    one, other = make_source(), make_source(seed=1)
    renamed = other.ids.copy()
    renamed[[3, 5]] = ["x", "y"]
    with pytest.raises(IdMismatchError, match=r"2 of 120 ids .* are not in features 2: first 's3', 's5'"):
        score_combined([one, make_source(seed=1, ids=renamed)])
    fewer = make_source(order=np.arange(100))
    with pytest.raises(
        IdMismatchError, match=r"20 of 120 ids of features 2 are not in the first features: first 's100'"
    ):
        score_combined([fewer, other])
    labels = other.labels.copy()
    labels[7] = 0
    with pytest.raises(InputError, match="got 0, not 3, for 's7'"):
        score_combined([one, make_source(seed=1, labels=labels)])
    score_combined([one, make_source(seed=1, labels=None)])


def test_wrong_calls_are_refused():
    with pytest.raises(InputError, match="Did you mean `mean-rank`"):
        score_combined([make_source(), make_source()], combine="mean_rank")
    with pytest.raises(InputError, match="at least 2 to be combined; got 1"):
        score_combined([make_source()])
    with pytest.raises(InputError, match="`labels` must be given for the first source"):
        score_combined([make_source(labels=None), make_source()])


@pytest.mark.parametrize(("combine", "passes"), [("mean-rank", 6), ("stack", 9)])
def test_progress_counts_the_passes_over_every_source(combine, passes):
    seen = Recorded()
    score_combined([make_source(0), make_source(1)], combine=combine, progress=seen)
    assert len(seen.passes()) == passes
    assert all(rises_to(calls, len(make_source(0).ids)) for calls in seen.passes())
