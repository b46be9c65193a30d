import re

import pytest
import torch
from making import make_predictions

from diffident.cli.verdict import comparisons_of, difference_table, means_table, summary, verdict_of
from diffident.errors import InputError
from diffident.evaluation import evaluate
from diffident.paired import compare_predictions
from diffident.records import Predictions


def sharper(predictions: Predictions, factor: float) -> Predictions:
    return Predictions(predictions.ids, predictions.logits * factor, predictions.labels)


def make_runs():
    """Cross-entropy that is far too sure of itself, and a difficulty-aware method that is not, of six seeds each."""
    runs = []
    for seed in range(6):
        # Twice these logits is what the classes' Gaussians make of them, so it is calibrated.
        fair = sharper(make_predictions(600, seed=seed), 2.0)
        runs += [("cross-entropy", seed, sharper(fair, 4.0)), ("difficulty-aware", seed, fair)]
    return runs


def evaluations_of(runs):
    return [(name, seed, evaluate(one.logits, one.labels, num_resamples=0)) for name, seed, one in runs]


def test_difficulty_aware_is_compared_with_each_of_the_others():
    names = ["cross-entropy", "difficulty-aware", "entropy alpha=0.1"]
    assert comparisons_of(names, None) == [
        ("difficulty-aware", "cross-entropy"),
        ("difficulty-aware", "entropy alpha=0.1"),
    ]
    assert comparisons_of(names, "entropy alpha=0.1") == [
        ("cross-entropy", "entropy alpha=0.1"),
        ("difficulty-aware", "entropy alpha=0.1"),
    ]
    assert comparisons_of(["a", "b"], None) == [("b", "a")]
    assert comparisons_of(["difficulty-aware", "difficulty-aware alpha=1"], None) == [
        ("difficulty-aware alpha=1", "difficulty-aware")
    ]


def test_what_is_real_is_said_first_and_what_is_not_last():
    runs = make_runs()
    paired = compare_predictions(runs, "cross-entropy", num_resamples=200)
    said = summary("difficulty-aware", paired)
    assert said.startswith("difficulty-aware against cross-entropy, 600 samples, 6 seeds: better beyond chance in ")
    real, _, rest = said.partition("; ")
    assert "ece (-" in real
    assert "accuracy (+0.0000)" in rest
    assert "not told from chance in" in rest


def test_the_table_has_the_numbers_of_the_comparison():
    paired = compare_predictions(make_runs(), "cross-entropy", num_resamples=200)
    table = difference_table([paired])
    assert len(table.rows) == 6
    for one, row in zip(paired.differences, table.rows, strict=True):
        assert row[:3] == ("difficulty-aware minus cross-entropy", one.metric, f"{one.difference.value:+.4f}")
        assert (row[6] == "not told from chance") == (not one.real)
    means = means_table(paired)
    assert re.fullmatch(r"0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)", means.rows[0][1])


def test_a_worse_method_is_called_worse():
    fair = sharper(make_predictions(600), 2.0)
    runs = [("cross-entropy", 0, fair), ("difficulty-aware", 0, sharper(fair, 4.0))]
    sentences, tables = verdict_of(evaluations_of(runs), runs, None, 200)
    assert "one seed, which says nothing of others: worse beyond chance in " in sentences[0]
    assert tables[0].key == "verdict"


def test_without_predictions_the_seeds_alone_speak():
    runs = make_runs()
    sentences, tables = verdict_of(evaluations_of(runs), [], None, 200)
    assert sentences[0].startswith("difficulty-aware against cross-entropy, 6 seeds: ")
    assert tables[0].key == "comparison"


def test_one_method_has_its_metrics_and_no_verdict():
    runs = make_runs()[:1]
    sentences, tables = verdict_of(evaluations_of(runs), runs, None, 200)
    assert sentences == []
    assert [table.key for table in tables] == ["metrics-cross-entropy"]
    assert verdict_of([], [], None, 200) == ([], [])


def test_many_runs_share_one_table_with_every_metric():
    runs = make_runs()
    evaluations = evaluations_of(runs)
    _, tables = verdict_of(evaluations, runs, None, 20)
    assert [table.key for table in tables] == ["verdict", "methods", "metrics"]
    assert tables[-1].header == ("metric", "cross-entropy (6)", "difficulty-aware (6)")
    assert [row[0] for row in tables[-1].rows] == list(evaluations[0][2].metrics)
    four = [(f"m{number}", 0, evaluations[number][2]) for number in range(4)]
    assert [table.key for table in verdict_of(four, [], None, 20)[1]] == ["comparison", "metrics"]


def test_an_unknown_baseline_is_refused():
    runs = make_runs()
    with pytest.raises(InputError, match=r"^`--baseline` must be one of the methods; got 'cross'\. Did you mean"):
        verdict_of(evaluations_of(runs), runs, "cross", 200)


def test_methods_without_a_common_seed_are_not_compared():
    fair = make_predictions(60)
    runs = [
        ("cross-entropy", 0, fair),
        ("difficulty-aware", 1, Predictions(fair.ids, fair.logits + torch.randn(60, 3), fair.labels)),
    ]
    sentences, _ = verdict_of(evaluations_of(runs), runs, None, 20)
    assert sentences == ["difficulty-aware against cross-entropy: no common seed, so nothing can be told."]
