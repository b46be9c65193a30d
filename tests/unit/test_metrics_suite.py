"""Metrics that share an order, bins and the bends of a curve are those that work all of it out on their own."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffident import metrics
from diffident.metrics.deviations import calibration_deviations
from diffident.metrics.ranking import bends, rank_samples, rank_unordered
from diffident.metrics.suite import CALIBRATION, COVERAGES, RISKS, Drawn, drawn_metrics, metric_names, prepare
from diffident.metrics.terms import SampleTerms

AREAS = ("aurc", "eaurc", "augrc", "auroc_errors", "aupr_errors", "fpr95_errors", "overconfidence")
rows = st.tuples(st.sampled_from([0.5, 0.6, 0.61, 0.8, 0.9, 0.99]), st.booleans(), st.booleans(), st.integers(0, 3))
tables = st.lists(rows, min_size=1, max_size=30).filter(lambda table: any(count for *_, count in table))


def columns(table):
    confidence, errors, labels, count = map(torch.tensor, zip(*table, strict=True))
    return confidence.double(), errors, labels, count[None].double()


@settings(deadline=None, max_examples=50)
@given(tables)
def test_every_draw_is_that_of_the_metric_alone(table):
    confidence, errors, labels, counts = columns(table)
    positive = torch.where(errors == labels, 1 - confidence, confidence).round(decimals=12)
    terms = SampleTerms(confidence, errors, confidence, confidence, labels.long(), positive)
    expected = {
        **{name: getattr(metrics, name)(confidence, errors, counts=counts) for name in (*AREAS, *CALIBRATION)},
        **{name: metrics.coverage_at_risk(confidence, errors, risk, counts) for name, risk in RISKS.items()},
        **{name: metrics.risk_at_coverage(confidence, errors, share, counts) for name, share in COVERAGES.items()},
        **{f"{name}_positive": getattr(metrics, name)(positive, ~labels, counts=counts) for name in CALIBRATION},
        "auroc_positive": metrics.auroc(positive, labels, counts),
        "aupr_positive": metrics.aupr(positive, labels, counts),
        "accuracy": metrics.accuracy(errors, counts),
    }
    found = drawn_metrics(Drawn(prepare(terms), counts), metric_names(binary=True))
    assert set(found) - set(expected) == {"nll", "brier"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, equal_nan=True, atol=1e-12, rtol=0, msg=name)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_the_largest_gap_of_a_resample_is_sought_at_every_threshold(table):
    confidence, errors, labels, counts = columns(table)
    assume(0 < errors.sum() < len(errors))  # else the bounds of the accuracy count too
    suite = prepare(SampleTerms(confidence, errors, confidence, confidence, labels.long(), None))
    gaps = confidence - (~errors).double()
    noise = counts[0] * gaps / counts.sum() - gaps / len(gaps)
    drawn = suite.calibration.ranking.cumulate_consistent(1, torch.Generator().manual_seed(0))[0] / len(gaps)
    largest = 0.0
    for place, threshold in enumerate(confidence.unique().flip(0)):
        above = confidence >= threshold
        seen, supposed = gaps[above].square().sum(), (confidence * (1 - confidence))[above].sum()
        assume((seen - supposed).abs() > 1e-9)  # else rounding decides which of the two is taken
        largest = max(largest, abs(float(drawn[place + 1] if supposed > seen else noise[above].sum())))
    found = calibration_deviations(suite.calibration, {"ks_error": float(CALIBRATION["ks_error"](Drawn(suite)))})(
        Drawn(suite, counts)
    )["ks_error"]
    torch.testing.assert_close(found.fall, torch.tensor([largest], dtype=torch.float64), atol=1e-12, rtol=0)


def test_curves_bend_beside_the_samples_sought_only():
    ranking = rank_samples(torch.tensor([0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4]), torch.arange(7) == 2)
    assert bends(ranking, ranking.positive).tolist() == [0, 1, 2, 6]
    assert bends(ranking, torch.zeros(7)).tolist() == [0, 6]


@given(st.lists(st.tuples(st.sampled_from([-0.0, 0.0, 5e-324, 0.3, 1 / 3, 1.0]), st.booleans()), min_size=1))
def test_sorting_without_rows_finds_the_same_ties(table):
    scores, positive = map(torch.tensor, zip(*table, strict=True))
    ours, theirs = rank_unordered(scores.double(), positive), rank_samples(scores.double(), positive)
    assert torch.equal(ours.ends, theirs.ends)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.cumulate().positives, theirs.cumulate().positives)
