import math

import pytest

from diffident.cli.compare import print_comparison, verdict
from diffident.comparison import ComparisonRow, Spread, compare
from diffident.records import Estimate, Evaluation

METRICS = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")


def evaluation(value):
    values = dict.fromkeys(METRICS, value) | {"auroc_errors": math.nan}
    return Evaluation({key: Estimate(v, math.nan, math.nan) for key, v in values.items()}, 10, 2)


def row(**differences):
    metrics = {key: Spread(0.0, 1.0, 5) for key in METRICS} | differences
    return ComparisonRow("new", (0, 1, 2, 3, 4), metrics, metrics)


def test_verdict_says_what_is_clear_and_in_which_direction():
    differences = {"accuracy": Spread(-0.02, 0.01, 5), "nll": Spread(-0.1, 0.05, 5), "ece": Spread(0.1, 0.1, 5)}
    assert verdict(row(**differences), "old") == (
        "new against old, 5 seeds: better in nll (-0.1000); worse in accuracy (-0.0200); "
        "not clearly different in ece (+0.1000), aurc (+0.0000)."
    )


@pytest.mark.parametrize(("deviation", "word"), [(0.0804, "better"), (0.0807, "not clearly different")])
def test_clear_means_that_the_t_interval_excludes_zero(deviation, word):
    # Half of the interval: t(0.975, 4) = 2.7764 times the deviation over sqrt(5); 0.1 at a deviation of 0.08054.
    assert f"{word} in nll" in verdict(row(nll=Spread(-0.1, deviation, 5)), "old").replace("accuracy (+0.0000), ", "")


def test_one_seed_prints_no_nan(capsys):
    print_comparison(compare([("old", 0, evaluation(0.5)), ("new", 0, evaluation(0.25))], "old"))
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert printed.startswith("one seed each")
    assert printed.endswith("new against old: 1 common seed, too few to tell a difference from chance.\n")


def test_no_common_seed_prints_no_nan(capsys):
    print_comparison(compare([("old", 0, evaluation(0.5)), ("new", 1, evaluation(0.25))], "old"))
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "new against old: no common seed" in printed
