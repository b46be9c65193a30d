import math

import numpy as np
import pytest
import torch
from making import HOSTILE, hostile_suspects, make_blobs, make_predictions, make_suspects, make_table

from diffident.auditing import audit
from diffident.confidence import max_softmax
from diffident.metrics.calibration import ece
from diffident.metrics.selective import aurc
from diffident.records import ClassGroup, DifficultyGroup, Estimate, Evaluation, Predictions
from diffident.report import audit_charts, prediction_charts
from diffident.report.building import Report
from diffident.report.charts import Histogram, Table, cell, numbers, plain_name, plain_names, slug, table_of_chart
from diffident.report.evaluation_charts import corruption_charts, difficulty_chart
from diffident.report.evaluation_tables import further_tables, metrics_table
from diffident.report.figures import draw_charts, write_figures
from diffident.report.prediction_charts import (
    Method,
    confidence_histogram,
    confusion_matrix,
    reliability_chart,
    risk_coverage_chart,
    stack_predictions,
    training_charts,
)
from diffident.report.tables import to_latex, to_markdown


def make_method(seed: int = 0, name: str = "m") -> Method:
    return stack_predictions(name, [make_predictions(seed=seed)], [{"noise": make_predictions(50, labelled=False)}])


def make_evaluation(value: float, **groups) -> Evaluation:
    estimate = Estimate(value, value - 0.1, value + 0.1)
    return Evaluation({"accuracy": estimate, "ece": estimate}, 10, 2, **groups)


def test_every_sample_is_in_a_bar_of_the_histogram():
    chart = audit_charts.difficulty_histogram(make_suspects(60))
    assert sum(map(sum, chart.counts)) == 60
    assert sum(chart.counts[1]) == 5


def test_samples_of_one_difficulty_have_a_histogram_too():
    chart = audit_charts.difficulty_histogram(audit(make_table([0, 1], [0, 1], [2.0, 2.0])))
    assert sum(chart.counts[0]) == 2


def test_classes_are_in_order_of_their_median():
    table = make_table([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 0], [1, 2, 5, 6, 3, 4], names=("a", "b", "c"))
    chart = audit_charts.difficulty_by_class(audit(table))
    assert chart.names == ("b", "c", "a")
    assert [row[2] for row in chart.quantiles] == [5.5, 3.5, 1.5]
    assert chart.marks == (0.0, 0.5, 0.0)


def test_rows_of_the_class_matrix_are_shares_and_absent_classes_are_blank():
    table = make_table([0, 0, 0, 2], [0, 0, 2, 2], [1, 2, 3, 4])
    chart = audit_charts.nearest_class_matrix(audit(table))
    assert chart.values[0] == (0.66667, 0.0, 0.33333)
    assert all(math.isnan(value) for value in chart.values[1])
    assert chart.counts[0] == (2, 0, 1)


def test_of_many_classes_those_taken_for_others_are_shown():
    labels = np.arange(200) % 100
    nearest = labels.copy()
    nearest[labels == 77] = 3
    chart = audit_charts.nearest_class_matrix(audit(make_table(labels, nearest, np.arange(200))))
    assert len(chart.rows) == audit_charts.MOST_CLASSES
    assert "77" in chart.rows
    assert "40 classes of 100" in chart.note


def test_distances_on_the_class_map_are_those_of_the_gaussians():
    suspects = make_suspects(300, num_wrong=0)
    _, labels, blocks = make_blobs(300, num_wrong=0)
    chart = audit_charts.class_map(suspects, blocks)
    gaussians = audit_charts.gaussians_of(blocks, labels, 3, "auto")
    wanted = torch.cdist(gaussians.projected_means, gaussians.projected_means).numpy()
    places = np.column_stack([chart.x, chart.y])
    got = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.testing.assert_allclose(got, wanted, rtol=1e-3)  # three means lie in a plane
    assert chart.sizes == (100, 100, 100)


def test_classes_that_are_taken_for_each_other_are_linked():
    table = make_table([0, 0, 1, 2], [1, 1, 0, 2], [1, 2, 3, 4])
    assert audit_charts._links(table, np.array([0, 1, 2])) == ((0, 1, 3.0),)


def test_the_reliability_diagram_sums_to_the_ece_in_its_legend():
    method = make_method()
    line = reliability_chart([method]).lines[0]
    counts, gaps = np.array(line.counts), np.abs(np.array(line.x) - np.array(line.y))
    value = float(ece(max_softmax(method.logits), method.errors))
    assert (counts * gaps).sum() / counts.sum() == pytest.approx(value, abs=1e-4)
    assert line.name == f"m (ECE {value:.3f})"
    assert all(low <= y <= high for low, y, high in zip(line.low, line.y, line.high, strict=True))


def test_the_interval_of_a_bin_is_wilsons():
    logits = torch.tensor([[0.0, math.log(4)]] * 10)
    labels = torch.tensor([1] * 8 + [0] * 2)
    line = reliability_chart([Method("m", logits, labels)]).lines[0]
    assert line.y == (0.8,)
    assert (line.low[0], line.high[0]) == (pytest.approx(0.49016, abs=1e-4), pytest.approx(0.94332, abs=1e-4))


def test_the_risk_coverage_curve_ends_at_the_error_rate_and_names_its_area():
    method = make_method()
    line = risk_coverage_chart([method]).lines[0]
    assert (line.x[-1], line.counts[-1]) == (1.0, 200)
    assert line.y[-1] == pytest.approx(float(method.errors.double().mean()))
    assert line.name == f"m (AURC {float(aurc(max_softmax(method.logits), method.errors)):.4f})"


def test_the_risk_coverage_curve_of_several_seeds_is_their_mean_and_has_the_area_of_its_name():
    # One seed is sure and right of half its samples, the other unsure and wrong of a third: pooled they mix.
    generator = torch.Generator().manual_seed(0)
    confidence = torch.cat(
        [0.9 + 0.1 * torch.rand(60, generator=generator), 0.5 + 0.1 * torch.rand(60, generator=generator)]
    )
    labels = torch.cat([torch.arange(60) % 2, torch.arange(60) % 3 // 2])
    logits = torch.stack([confidence.log(), (1 - confidence).log()], dim=1)
    line = risk_coverage_chart([Method("m", logits, labels, sizes=(60, 60))]).lines[0]
    areas = [float(aurc(confidence[part], labels[part] != 0)) for part in (slice(60), slice(60, 120))]
    assert sum(line.y) / len(line.y) == pytest.approx(sum(areas) / 2, abs=1e-5)
    assert line.name == f"m (AURC {sum(areas) / 2:.4f})"
    assert line.x == pytest.approx([place / 60 for place in range(1, 61)], abs=1e-5)


def test_the_confidence_histogram_has_right_wrong_and_out_of_distribution():
    chart = confidence_histogram(make_method(), 0)
    assert [name for name, _ in chart.groups] == ["right", "wrong", "out-of-distribution: noise"]
    assert sum(chart.counts[0]) + sum(chart.counts[1]) == 200
    assert sum(chart.counts[2]) == 50
    assert sum(chart.groups[2][1]) == pytest.approx(1)


def test_a_classifier_that_is_always_right_has_an_empty_group():
    logits = 5 * torch.eye(2)[[0, 1, 1]]
    chart = confidence_histogram(Method("m", logits, torch.tensor([0, 1, 1])), 0)
    assert sum(chart.counts[1]) == 0


def test_the_confusion_matrix_has_the_true_class_in_its_rows():
    logits = torch.eye(2)[[0, 1, 1]]
    chart = confusion_matrix(Method("m", logits, torch.tensor([0, 0, 1])), 0)
    assert chart.values == ((0.5, 0.5), (0.0, 1.0))


def test_seeds_are_averaged_epoch_by_epoch():
    logs = {
        "m": [[{"epoch": 1, "train_loss": 1.0}], [{"epoch": 1, "train_loss": 3.0}, {"epoch": 2, "train_loss": 2.0}]]
    }
    (chart,) = training_charts(logs)
    line = chart.lines[0]
    assert (line.x, line.y, line.low, line.high) == ((1, 2), (2, 2), (1, 2), (3, 2))


def test_what_a_curriculum_showed_is_a_curve():
    lines = [{"epoch": 1, "train_loss": 1.0, "share_shown": 0.15}, {"epoch": 2, "train_loss": 0.5, "share_shown": 1.0}]
    charts = {chart.key: chart for chart in training_charts({"with": [lines], "without": [[{"epoch": 1}]]})}
    assert set(charts) == {"train-loss", "share-shown"}
    (line,) = charts["share-shown"].lines
    assert (line.name, line.y) == ("with", (0.15, 1.0))


def test_metrics_by_difficulty_have_intervals_of_one_seed_and_the_range_of_several():
    def groups(values):
        return tuple(DifficultyGroup(0.0, 1.0, 5, {"accuracy": Estimate(v, v - 0.1, v + 0.1)}) for v in values)

    one_seed = [make_evaluation(0.5, by_difficulty=groups([0.9, 0.5]))]
    one = difficulty_chart({"m": one_seed}, "accuracy")
    assert one.lines[0].low == (0.8, 0.4)
    assert one.categories == ("easiest", "hardest")
    seeds = [make_evaluation(0.5, by_difficulty=groups([0.9, value])) for value in (0.5, 0.7)]
    several = difficulty_chart({"m": seeds}, "accuracy")
    assert (several.lines[0].y, several.lines[0].low, several.lines[0].high) == ((0.9, 0.6), (0.9, 0.5), (0.9, 0.7))
    assert difficulty_chart({"m": [make_evaluation(0.5)]}, "accuracy") is None
    both = difficulty_chart({"m": one_seed, "n": seeds}, "accuracy")
    assert [chart.note.partition("; ")[2] for chart in (one, several, both)] == [
        "the range is a 95 % interval.",
        "the range is that of the seeds.",
        "the range is a 95 % interval, or that of the seeds.",
    ]


def test_notes_promise_no_intervals_where_there_are_none():
    plain = Estimate(0.5, math.nan, math.nan)
    group = DifficultyGroup(0.0, 1.0, 5, {"accuracy": plain})
    without = Evaluation({"accuracy": plain}, 10, 2, by_difficulty=(group,))
    assert difficulty_chart({"m": [without]}, "accuracy").note == "Test samples in equal groups, easiest left."
    several = "Mean ± standard deviation over seeds, in brackets behind the method their number; of one seed the value"
    assert metrics_table({"m": [without, without], "n": [without]}).note == f"{several}."
    with_intervals = metrics_table({"m": [without, without], "n": [make_evaluation(0.5)]})
    assert with_intervals.note == f"{several} and its 95 % interval."


def test_corruptions_are_in_a_grid_with_gaps():
    grid = {("fog", 1): {"accuracy": 0.9, "ece": 0.1}, ("fog", 3): {"accuracy": 0.5}, ("salt", 3): {"accuracy": 0.4}}
    accuracy, error = corruption_charts({"m": grid})
    assert (accuracy.rows, accuracy.columns) == (("fog", "salt"), ("1", "3"))
    assert accuracy.values[0] == (0.9, 0.5)
    assert math.isnan(accuracy.values[1][0])
    assert error.values[0][0] == 0.1
    assert (accuracy.key, error.key) == ("accuracy-by-corruption-0", "ece-by-corruption-0")


def test_what_else_an_evaluation_holds_is_one_table_each():
    estimate = Estimate(0.5, 0.4, 0.6)
    group = ClassGroup(1, "cat", 7, {"accuracy": estimate, "mce": estimate})
    one = make_evaluation(
        0.5,
        ood_detectors={"noise": {"energy": {"auroc": estimate}}},
        calibrated={"temperature": {"nll": estimate}},
        conformal={"aps": {"coverage": Estimate(0.9, math.nan, math.nan)}},
        abstention={"0.05": {"threshold": Estimate(math.nan, math.nan, math.nan)}},
        by_class=(group,),
    )
    tables = further_tables({"a": [one], "b": [make_evaluation(0.5)]})
    shown = "0.5000 (0.4000 to 0.6000)"
    assert {table.key: (table.header, table.rows) for table in tables} == {
        "detectors": (("method", "detector", "auroc"), (("a", "noise: energy", shown),)),
        "calibrated": (("method", "calibrator", "nll"), (("a", "temperature", shown),)),
        "conformal": (("method", "sets", "coverage"), (("a", "aps", "0.9000"),)),
        "abstention": (("method", "target error rate", "threshold"), (("a", "0.05", "–"),)),
        "classes": (("method", "class (samples)", "accuracy"), (("a", "cat (7)", shown),)),
    }
    assert further_tables({"m": [make_evaluation(0.5)]}) == []


def test_seeds_are_shown_by_mean_and_deviation_and_the_missing_counted():
    def seed(*values):
        return make_evaluation(
            0.5,
            calibrated={name: {"nll": Estimate(value, 0.1, 0.9)} for name, value in zip("tv", values, strict=False)},
        )

    (table,) = further_tables({"a": [seed(0.2, 0.3), seed(0.4), seed(0.6, math.nan)], "b": [seed(0.5)]})
    assert table.rows == (
        ("a (3)", "t", "0.4000 ± 0.2000"),
        ("a (3)", "v", "0.3000 (0.1000 to 0.9000), 1 of 3 seeds"),
        ("b (1)", "t", "0.5000 (0.1000 to 0.9000)"),
    )


def test_of_many_classes_the_first_are_shown_and_the_others_counted():
    groups = tuple(ClassGroup(index, None, 1, {"accuracy": Estimate(1.0, 1.0, 1.0)}) for index in range(103))
    (table,) = further_tables({"m": [make_evaluation(0.5, by_class=groups)]})
    assert (len(table.rows), table.rows[-1][1]) == (100, "99 (1)")
    assert table.note.endswith("The first 100 classes; 3 are left out.")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("\u202egpj.exe", "gpj.exe"),
        ("a\nb\x00c\u2028d", "a b c d"),
        ("", "(no name)"),
        ("y" * 100, "y" * 39 + "…"),
        ("猫 кот", "猫 кот"),
    ],
)
def test_names_in_plots_are_one_short_line_that_turns_nothing(name, shown):
    assert plain_name(name) == shown


def test_names_that_become_one_are_numbered():
    assert plain_names(["a", "\u202ea", "b"]) == ("a (0)", "a (1)", "b")


def test_a_name_in_a_files_name_is_no_path():
    assert slug("../../etc/Passwd é") == "etc-passwd"
    assert slug("") == "unnamed"


def test_a_plots_table_has_its_numbers():
    chart = Histogram("k", "t", "n", "x", "y", (0.0, 0.5, 1.0), (("a", (0.25, 0.75)),), ((1.0, 3.0),))
    assert table_of_chart(chart) == Table(
        "k", "t", ("from", "to", "a"), (("0.0000", "0.5000", "1"), ("0.5000", "1", "3")), "n"
    )


def test_names_are_text_in_latex_and_markdown():
    table = Table("k", "t", ("a|b", "n"), (("\\input{x} $ & <b> _", "1"), ("two\nlines", "–")))
    assert "\\textbackslash{}input\\{x\\} \\$ \\&" in to_latex(table)
    assert "\\input{" not in to_latex(table).replace("\\textbackslash{}input", "")
    markdown = to_markdown(table)
    assert "a\\|b" in markdown
    assert "\\<b\\>" in markdown
    assert markdown.count("\n") == 4


def every_chart():
    suspects, _ = hostile_suspects()
    _, _, blocks = make_blobs(60)
    methods = [make_method(0, HOSTILE[5]), make_method(1, "$x_1$")]
    corrupted = {HOSTILE[0]: {(HOSTILE[4], 2): {"accuracy": 0.9, "ece": 0.1}}}
    logs = {HOSTILE[1]: [[{"epoch": n, "train_loss": 1.0 / n} for n in range(1, 50)]] * 2}
    return [
        *audit_charts.audit_charts(suspects, None),
        *audit_charts.audit_charts(make_suspects(60), blocks),
        *prediction_charts.prediction_charts(methods),
        *corruption_charts(corrupted),
        *training_charts(logs),
    ]


def test_every_plot_is_drawn_whatever_its_names_are(tmp_path):
    charts = {chart.kind: chart for chart in every_chart()}
    assert set(charts) == {"lines", "histogram", "ranges", "matrix", "points"}
    names = write_figures(Report("t", charts=tuple(charts.values())), tmp_path)
    assert len(names) == 15
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_the_same_plot_gives_the_same_bytes(tmp_path):
    report = Report("t", charts=(reliability_chart([make_method()]),))
    first, second = tmp_path / "a", tmp_path / "b"
    assert write_figures(report, first) == write_figures(report, second)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_figure_draws_the_numbers_of_its_plot():
    chart = reliability_chart([make_method()])
    axes = draw_charts([chart]).axes[0]
    drawn = axes.lines[1].get_xydata()
    np.testing.assert_array_equal(drawn, np.column_stack([chart.lines[0].x, chart.lines[0].y]))
    assert axes.get_legend().get_texts()[0].get_text() == chart.lines[0].name


def test_seeds_are_averaged_as_in_tables_and_do_not_narrow_intervals():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 3, generator=generator), torch.randint(3, (40,), generator=generator)
    other = torch.randn(40, 3, generator=generator)
    seeds = [Predictions(np.arange(40).astype(str).astype(object), one, labels) for one in (logits, other)]
    twice = stack_predictions("m", [seeds[0], seeds[0]], [])
    assert reliability_chart([twice]).lines[0].low == reliability_chart([Method("m", logits, labels)]).lines[0].low
    mean = np.mean([float(ece(max_softmax(one.logits), one.logits.argmax(1) != labels)) for one in seeds])
    assert reliability_chart([stack_predictions("m", seeds, [])]).lines[0].name == f"m (ECE {mean:.3f})"


def test_counts_are_whole_and_small_numbers_are_not_zero():
    assert numbers(np.array([1281167, 123456])) == (1281167.0, 123456.0)
    assert [cell(value) for value in (2e-5, 0.0, 0.12345, 1281167.0)] == ["2e-05", "0.0000", "0.1235", "1,281,167"]
