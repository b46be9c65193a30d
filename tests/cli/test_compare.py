import json
import math
import re

import numpy as np
import pytest

from diffident.cli import main
from diffident.cli.compare import name_of_run
from diffident.cli.comparison_output import print_comparison, verdict
from diffident.comparison import ComparisonRow, Spread, compare
from diffident.records import Estimate, Evaluation
from diffident.settings import load_settings

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


def test_a_metric_that_some_seeds_lack_says_how_many_have_it(capsys):
    no_errors, some = evaluation(0.5), evaluation(0.25)
    some.metrics["auroc_errors"] = Estimate(0.75, math.nan, math.nan)
    print_comparison(compare([("old", 0, no_errors), ("old", 1, some), ("old", 2, some)]))
    printed = " ".join(capsys.readouterr().out.replace("|", " ").split())
    assert printed.count("2 of 3 seeds") == 1
    assert "0.7500 ± 0.0000, 2 of 3 seeds" in printed


def test_no_common_seed_prints_no_nan(capsys):
    print_comparison(compare([("old", 0, evaluation(0.5)), ("new", 1, evaluation(0.25))], "old"))
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "new against old: no common seed" in printed


def write_files(folder, **scales):
    """The same samples predicted more and less surely; labels follow the plain logits."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(400, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(3, p=row) for row in shares])
    for name, scale in scales.items():
        np.savez(folder / f"{name}.npz", logits=logits * scale, labels=labels)


def test_files_are_compared_in_words(tmp_path, capsys):
    write_files(tmp_path, plain=1.0, sharp=3.0)
    assert main(["compare", str(tmp_path / "plain.npz"), f"sure={tmp_path / 'sharp.npz'}", "--resamples", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("sure against plain, 400 samples, one seed, which says nothing of others:")
    assert len(lines) == start + 7
    assert lines[start + 1] == (
        "  accuracy is the same (0.0000 to 0.0000); p = 1 after Holm over 6 metrics: not told from chance."
    )
    assert re.fullmatch(
        r"  NLL is higher by 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\); p = 0\.059 after Holm over 6 metrics: not .*",
        lines[start + 2],
    )


def test_metrics_have_the_intervals_of_the_paired_comparison(tmp_path, capsys):
    write_files(tmp_path, plain=1.0, sharp=3.0)
    sources = [str(tmp_path / "plain.npz"), str(tmp_path / "sharp.npz")]
    assert main(["compare", *sources, "--resamples", "50", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    for row in content["rows"]:
        for metric, estimate in content["paired"]["means"][row["name"]].items():
            found = row["metrics"][metric]
            assert (found["low"], found["high"]) == (estimate["low"], estimate["high"])
            assert found["low"] <= found["mean"] <= found["high"]
        assert row["metrics"]["mce"]["low"] is None
    assert main(["compare", *sources, "--resamples", "50"]) == 0
    low, high = (content["rows"][0]["metrics"]["nll"][end] for end in ("low", "high"))
    assert f"{low:.4f} to {high:.4f}" in capsys.readouterr().out


def test_files_of_one_name_are_seeds_and_metrics_are_chosen(tmp_path, capsys):
    write_files(tmp_path, a=1.0, b=1.01, c=3.0, d=3.1)
    sources = [f"old={tmp_path / 'a.npz'}", f"old={tmp_path / 'b.npz'}", f"new={tmp_path / 'c.npz'}"]
    sources += [f"new={tmp_path / 'd.npz'}", "--baseline", "old", "--metrics", "nll", "ks_error"]
    assert main(["compare", *sources, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["num_seeds"] for row in content["rows"]] == [2, 2]
    differences = content["paired"]["differences"]
    assert [(one["name"], one["metric"], one["num_seeds"]) for one in differences] == [
        ("new", "nll", 2),
        ("new", "ks_error", 2),
    ]
    assert differences[0]["real"]
    least = min(differences, key=lambda one: one["p_value"])
    assert least["adjusted_p"] == pytest.approx(2 * least["p_value"])
    assert content["paired"]["means"]["new"]["nll"]["low"] < content["paired"]["means"]["new"]["nll"]["value"]


def test_metrics_that_are_tested_are_in_the_tables_and_seeds_without_a_partner_are_named(tmp_path, capsys):
    write_files(tmp_path, a=1.0, b=1.01, c=3.0)
    sources = [*(f"old={tmp_path / name}.npz" for name in "ab"), f"new={tmp_path / 'c.npz'}"]
    options = ["--baseline", "old", "--resamples", "9", "--metrics", "mce"]
    assert main(["compare", *sources, *options]) == 0
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if line.startswith("┃ method"))
    assert header.replace("┃", " ").split() == ["method", "mce"]
    assert "new against old, 400 samples, one seed that both have, of 1 and 2, which says nothing of others:" in printed
    assert "after Holm over 1 metric: " in printed
    assert main(["compare", *sources, f"new={tmp_path / 'a.npz'}", *options]) == 0
    assert "new against old, 400 samples, 2 seeds:" in capsys.readouterr().out


def test_tables_of_many_metrics_are_several_that_terminals_have_room_for(tmp_path, capsys, monkeypatch):
    write_files(tmp_path, a=1.0, b=1.01)
    metrics = ["mce", "ks_error", "augrc", "eaurc", "nll", "brier", "accuracy", "fpr95_errors"]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    sources = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    assert main(["compare", *sources, "--resamples", "9", "--metrics", *metrics]) == 0
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert all(len(line) <= 80 for line in printed.splitlines() if line[:1] in "│┃")
    headers = [line.replace("┃", " ").split() for line in printed.splitlines() if line.startswith("┃ method")]
    assert headers == 2 * [["method", *metrics[:6]], ["method", *metrics[6:]]]
    values = [word for line in printed.splitlines() if line.startswith("│") for word in line.split() if "." in word]
    assert all(re.fullmatch(r"[+-]?\d\.\d{4}", word) for word in values)


def test_several_data_sets_give_mean_ranks(tmp_path, capsys):
    write_files(tmp_path, a=1.0, b=3.0)
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    sources = [f"x/plain={a}", f"x/sharp={b}", f"y/plain={b}", f"y/sharp={a}", f"z/plain={a}", f"z/sharp={b}"]
    assert main(["compare", *sources, "--baseline", "plain", "--resamples", "20", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["datasets"]) == ["x", "y", "z"]
    assert content["mean_ranks"]["nll"] == {"plain": pytest.approx(4 / 3), "sharp": pytest.approx(5 / 3)}
    assert content["mean_ranks"]["accuracy"] == {"plain": 1.5, "sharp": 1.5}
    assert main(["compare", *sources, "--resamples", "20"]) == 0
    assert "mean rank over 3 data sets, 1 is best" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["x/a=a.npz", "b.npz"], "`SOURCE` must name its data set where others do; got b.npz"),
        (["missing.npz", "a.npz"], "`SOURCE` must be a run or a file; got missing.npz, which is not there."),
        (["x/=a.npz"], "`SOURCE` must be PATH, NAME=PATH or DATASET/NAME=PATH; got `x/=a.npz`"),
        (["a=a.npz", "a=other.npz"], "398 of 400 ids of 'a' are not in 'a', seed 1: first '2', '3', '4'"),
        (["a.npz", "b.npz", "--metrics", "classwise_ece"], "`metrics` must be among those that can be paired"),
        (["x/a=a.npz", "x/b=b.npz", "y/a=b.npz"], "got 'b' for x and not for y. Give y/b=PATH, or leave x/b out."),
        (
            ["a.npz", "b=b.json"],
            "`FILE` must be predictions, which are compared sample by sample; got b.json. Give the",
        ),
        (["a.npz", "b.npz", "--metrics", "ece_positive"], "got `ece_positive`, which is for two. Leave it out."),
        (["a.npz", "b.npz", "--resamples", "0"], "`num_resamples` must be at least 1"),
    ],
)
def test_wrong_sources(sources, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, a=1.0, b=3.0)
    (tmp_path / "b.json").write_text("{}")
    np.savez("other.npz", logits=np.zeros((2, 3)), labels=np.zeros(2, dtype=int))
    assert main(["compare", *sources]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def runs(tmp_path, monkeypatch, capsys):
    """Two evaluated runs, of seeds 3 and 5."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(60) % 3
    features = (np.random.default_rng(0).normal(size=(60, 4)) + 2 * np.eye(3, 4)[labels]).astype(np.float32)
    np.savez("train.npz", features=features, labels=labels)
    np.savez("test.npz", features=features + 0.5, labels=labels)
    for seed in (3, 5):
        command = ["train", "train.npz", "--test", "test.npz", "--model", "mlp", "--epochs", "1", "--set", "device=cpu"]
        assert main([*command, "--seed", str(seed), "--out", f"run-{seed}"]) == 0
    capsys.readouterr()
    return tmp_path


def test_runs_pair_by_seed_and_beside_files_by_place(runs, capsys):
    def difference(*sources):
        command = ["compare", *sources, "--baseline", "b", "--metrics", "nll", "--resamples", "10", "--json"]
        assert main(command) == 0
        said = capsys.readouterr()
        assert ("files have no seeds" in said.err) == (file in said.err or any(file in source for source in sources))
        found = json.loads(said.out)["paired"]["differences"]
        return [(one["num_seeds"], round(one["value"], 9)) for one in found]

    file = "run-5/predictions/test.parquet"
    assert difference("a=run-3", "b=run-5", "b=run-3") == [(1, 0)]
    assert difference("a=run-3", "b=run-5") == []
    nll = {seed: json.loads((runs / f"run-{seed}" / "evaluation.json").read_text())["nll"]["value"] for seed in (3, 5)}
    assert difference("a=run-3", f"b={file}") == [(1, round(nll[3] - nll[5], 9))]
    assert difference("a=run-3", "a=run-5", f"b={file}", "b=run-3") == [(2, 0)]
    assert difference("a=run-3", f"b={file}", "b=run-3") == [(1, round(nll[3] - nll[5], 9))]
    assert main(["compare", "run-3/predictions/test.parquet", file]) == 2
    assert "`FILE` must be given as NAME=FILE where several are called test; got no names." in capsys.readouterr().err
    for twice in (("a=run-3", f"a={runs / 'run-3'}"), (f"a={file}", f"a={file}")):
        assert main(["compare", *twice, "b=run-5"]) == 2
        assert "`SOURCE` must be given once by a name; got " in capsys.readouterr().err


def leave_only(metric, runs):
    """Evaluations of one metric, and no predictions."""
    for folder in ("run-3", "run-5"):
        (runs / folder / "predictions" / "test.parquet").unlink()
        file = runs / folder / "evaluation.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: content[key] for key in (metric, "num_samples", "num_classes")}))


def test_without_the_usual_metrics_the_others_are_said(runs, capsys):
    leave_only("mce", runs)
    assert main(["compare", "a=run-3", "b=run-3", "b=run-5", "a=run-5"]) == 0
    assert "b against a, 2 seeds: not clearly different in mce" in capsys.readouterr().out


def test_runs_without_predictions_or_with_few_metrics_are_compared_by_what_is_there(runs, capsys):
    leave_only("ece", runs)
    sources = ["a=run-3", "b=run-3", "b=run-5", "a=run-5"]
    assert main(["compare", *sources]) == 0
    assert "b against a, 2 seeds: not clearly different in ece" in capsys.readouterr().out
    assert main(["compare", *(f"{data}/{source}" for data in ("x", "y") for source in sources), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["datasets"]) == ["x", "y"]
    assert content["mean_ranks"] == {"ece": {"a": 1.5, "b": 1.5}}
    for option in (("--resamples", "10"), ("--metrics", "ece")):
        assert main(["compare", *sources, *option]) == 2
        assert f"`{option[0]}` must be used where all runs have predictions" in capsys.readouterr().err


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_run_by_the_defaults_has_the_name_of_its_loss(pretrained):
    settings = load_settings(model="timm:resnet18", loss="difficulty-aware", pretrained=pretrained)
    assert name_of_run(settings) == "difficulty-aware"
    assert name_of_run(settings.changed(temperature=0.5)) == "difficulty-aware temperature=0.5"
