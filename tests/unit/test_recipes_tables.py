"""The document of the results: what it says of numbers that are known, and that it is made anew from the results."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffident.errors import InputError
from experiments.plots import draw_lines
from experiments.summary import COLUMNS, mean_of
from experiments.sweeps import sweeps_of
from tables import main, write_page

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "recipes" / "results").glob("*.json"))
METRICS = ("accuracy", "ece", "classwise_ece", "nll", "brier", "aurc", "auroc_errors", "fpr95_errors", "ood/far")


def values_at(accuracy, **others):
    plain = dict.fromkeys(METRICS, 0.5) | {"accuracy": accuracy} | others
    return plain


def method_of(values, role="loss", **others):
    runs = [
        {"seed": seed, "seconds": 2.0, "temperature": 1.0, "before": one, "after": values_at(0.8)}
        for seed, one in enumerate(values)
    ]
    return {"role": role, **others, "runs": runs}


def difference(method, metric, ends, p, other="cross-entropy"):
    return {
        "method": method, "other": other, "metric": metric, "difference": ends, "p": p, "adjusted_p": p, "num_seeds": 2,
    }  # fmt: skip


def results_of(**others):
    tuning = {
        "seed": 1000,
        "trials": [{"gamma": 1.0, "nll": 0.5}, {"gamma": 2.0, "nll": 0.6}],
        "chosen": {"gamma": 1.0},
    }
    methods = {
        "cross-entropy": method_of([values_at(0.80), values_at(0.82)]),
        "focal": method_of([values_at(0.85, nll=0.4), values_at(0.85, nll=0.4)], tuning=tuning),
        "shuffled": method_of([values_at(0.9), values_at(0.7, auroc_errors=None)], role="control"),
        "ensemble": method_of([values_at(0.99)], role="ensemble", of="cross-entropy", members=2),
    }
    differences = [
        difference("focal", "accuracy", [0.04, 0.02, 0.06], 0.01),
        difference("focal", "nll", [-0.1, -0.2, -0.01], 0.04),
        difference("focal", "brier", [-0.1, -0.2, 0.01], 0.04),  # its interval holds 0
        difference("focal", "ece", [0.01, 0.0, 0.02], 0.3),
        difference("shuffled", "accuracy", [-0.01, -0.1, 0.1], None),
        difference("focal", "aurc", [0.02, 0.01, 0.03], 0.001, other="shuffled"),
    ]
    means = {name: {column.key: [0.5, 0.4, 0.6] for column in COLUMNS} for name in methods}
    compared = {"means": means, "differences": differences}
    return {
        "format_version": 1, "recipe": "toy", "title": "Toy", "baseline": "cross-entropy", "ours": "focal",
        "seeds": [0, 1], "data": {"train": {"name": "t", "num_samples": 1000}}, "training": {},
        "difficulty": {"method": "rmd", "encoder": "timm:big", "image_size": 64},
        "environment": {"diffident": "0", "torch": "1", "cpu": "a CPU", "cores": 2, "threads": 1, "gpu": None},
        "methods": methods, "missing": {}, "comparisons": {"before": compared, "after": compared}, **others,
    }  # fmt: skip


def write(tmp_path, *several):
    paths = []
    for results in several:
        paths.append(tmp_path / f"{results['recipe']}.json")
        paths[-1].write_text(json.dumps(results))
    write_page(paths, tmp_path / "results.md", tmp_path / "images")
    return (tmp_path / "results.md").read_text()


def row(text, name, heading):
    part = text.split(f"### {heading}\n")[1].split("\n### ")[0]
    line = next(line for line in part.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_deviations_and_what_is_best(tmp_path):
    text = write(tmp_path, results_of())
    assert row(text, "cross-entropy", "Toy, as trained")[1] == "81.00 ± 1.41"
    assert row(text, "focal", "Toy, as trained")[1] == "**85.00** ± 0.00"
    assert row(text, "focal", "Toy, as trained")[4] == "**0.4000** ± 0.0000"
    assert row(text, "shuffled", "Toy, as trained")[7] == "**50.00**"
    assert row(text, "ensemble", "Toy, as trained")[1] == "99.00"
    assert row(text, "cross-entropy", "Toy, after temperature scaling on validation data")[1] == "**80.00** ± 0.00"
    percent = "50.00 (40.00 to 60.00)"
    shown = ["focal", percent, percent, "0.5000 (0.4000 to 0.6000)", "50.000 (40.000 to 60.000)"]
    assert row(text, "focal", "Toy, 95 % intervals over samples and seeds") == shown
    assert "Chosen by validation NLL: focal gamma 1 (of 1, 2).\n" in text
    assert "\nDifficulty: `rmd`, of features of `timm:big` at 64 px.\n" in text
    assert "6 trainings of 2 s (median) on a CPU, 2 cores, 1 thread(s) a training" in text


def test_what_chance_makes_of_ece_is_said_where_it_is_known(tmp_path):
    results = results_of()
    assert "By chance alone calibrated" not in write(tmp_path, results)
    for name, values in (("cross-entropy", (0.01, 0.012)), ("focal", (0.02, 0.02))):
        for run, value in zip(results["methods"][name]["runs"], values, strict=True):
            run["before"]["ece_of_chance"] = value
    said = "an ECE of 1.10 % with the confidences of `cross-entropy` and of 2.00 % with the confidences of `focal`.\n"
    assert said in write(tmp_path, results)


def test_real_differences_are_said_in_words(tmp_path):
    text = write(tmp_path, results_of())
    assert (
        "\n- focal: accuracy better by 4.00 (+2.00 to +6.00, p 0.01); "
        "NLL better by 0.1000 (-0.2000 to -0.0100, p 0.04).\n"
    ) in text
    assert "\n- shuffled: none of the differences is told from chance.\n" in text
    assert "Of focal from the others:\n\n- from shuffled: AURC worse by 2.000 (+1.000 to +3.000, p 0.001).\n" in text


def test_what_ours_changes_is_at_the_top(tmp_path):
    swept = results_of(recipe="toy2", title="Toy 2")
    swept["methods"]["focal@noise=0.4"] = point("noise", "data.label_noise", 0.4, 0.5)
    text = write(tmp_path, results_of(), swept, results_of(recipe="toy3", title="Toy 3", comparisons=None))
    part = text.split("## At a glance\n")[1].split("\n## ")[0]
    assert part.index("As trained:") < part.index("After temperature scaling on validation data:")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if "`toy" in line]
    assert cells == 2 * [
        ["`toy`", "cross-entropy", "**+4.00**", "+1.00", "**-0.1000**", "–"],  # better; not told; better; not measured
        ["`toy`", "shuffled", "–", "–", "–", "(+2.000)"],  # worse
    ]


def test_mean_ranks_are_of_single_model_losses_that_all_recipes_have(tmp_path):
    other = results_of(recipe="toy2", title="Toy 2")
    other["methods"]["poly"] = method_of([values_at(0.1)])
    text = write(tmp_path, results_of(), other)
    part = text.split("## Mean ranks\n")[1].split("\n## ")[0]
    assert (
        "Over 2 recipes and all metrics of the tables, 1 is best; single models only. Not in all of them: poly." in part
    )
    # Of nine metrics focal is better in two and the same in seven.
    ranks = [line.split("|")[1:3] for line in part.splitlines()[-2:]]
    hardly = results_of(recipe="toy3", title="Toy 3", missing={"poly": [0, 1], "crl": [0], "mbls": [0, 1]})
    hardly["methods"]["focal"] = method_of([values_at(0.1, nll=9.0)])
    part = write(tmp_path, results_of(), other, hardly).split("## Mean ranks\n")[1].split("\n## ")[0]
    assert "Not in all of them: poly. Without what is mostly not trained yet: Toy 3." in part
    assert [line.split("|")[1:3] for line in part.splitlines()[-2:]] == ranks
    assert [line.split("|")[1:3] for line in part.splitlines()[-2:]] == [
        [" focal         ", f" {(2 * 1 + 7 * 1.5) / 9:>12.2f} "],
        [" cross-entropy ", f" {(2 * 2 + 7 * 1.5) / 9:>12.2f} "],
    ]


def point(sweep, vary, value, accuracy, method="focal"):
    place = {"sweep": sweep, "vary": vary, "value": value, "method": method}
    return method_of([values_at(accuracy), values_at(accuracy)], role="ablation", point=place)


def test_sweeps_have_a_table_and_a_picture_and_start_where_nothing_is_done(tmp_path):
    results = results_of()
    results["methods"] |= {
        "focal@noise=0.4": point("noise", "data.label_noise", 0.4, 0.5),
        "focal@noise=0.2": point("noise", "data.label_noise", 0.2, 0.7),
        "focal@measure=knn": point("measure", "difficulty.method", "knn", 0.6),
    }
    text = write(tmp_path, results)
    part = text.split("### Toy: noise\n")[1].split("\n### ")[0]
    cells = [
        [cell.strip() for cell in line.split("|")[1:4]] for line in part.splitlines() if line.startswith("| focal")
    ]
    assert cells == [
        ["focal", "0", "85.00 ± 0.00"],
        ["focal", "0.2", "70.00 ± 0.00"],
        ["focal", "0.4", "50.00 ± 0.00"],
    ]
    assert "![Toy: ECE %, NLL, AURC % against data.label_noise](images/toy-sweep-noise.png)" in part
    assert "focal@noise" not in text
    part = text.split("### Toy: measure\n")[1].split("\n### ")[0]
    cells = [
        [cell.strip() for cell in line.split("|")[1:4]] for line in part.splitlines() if line.startswith("| focal")
    ]
    assert cells == [["focal", "knn", "60.00 ± 0.00"], ["focal", "rmd", "85.00 ± 0.00"]]
    for name in ("toy.png", "toy-sweep-noise.png", "toy-sweep-measure.png"):
        assert f"](images/{name})" in text
        assert 1000 < (tmp_path / "images" / name).stat().st_size <= 100_000
        with Image.open(tmp_path / "images" / name) as image:
            assert image.width > 600


def test_logarithmic_pictures_have_the_values_under_them():
    results = results_of()
    results["methods"] |= {f"focal@t={t}": point("t", "temperature", t, 0.5) for t in (0.3, 5.0, 0.1)}
    for axes in draw_lines(sweeps_of(results)[0]).axes:
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.3", "5"]
        assert not axes.get_xticks(minor=True).size


def test_what_is_not_finished_is_said(tmp_path):
    text = write(tmp_path, results_of(missing={"mixup": [0, 1]}, comparisons=None))
    assert "\nNot finished: mixup (2 seeds).\n" in text
    assert "real differences," not in text


def test_intervals_are_those_of_student():
    found = mean_of([1.0, 2.0, None, 6.0])
    assert found.mean == 3.0
    assert found.deviation == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert found.high - found.mean == pytest.approx(4.302653 * found.deviation / 3**0.5, rel=1e-6)
    assert np.isnan(mean_of([1.0]).deviation)
    assert np.isnan(mean_of([None]).mean)


def test_other_files_are_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="`RESULTS` must hold a finished run"):
        write(tmp_path, results_of(methods={}))
    with pytest.raises(InputError, match="`RESULTS` must be of different recipes; got one twice"):
        write(tmp_path, results_of(), results_of())
    (tmp_path / "a.json").write_text("[]")
    assert main([str(tmp_path / "a.json"), "--out", str(tmp_path / "r.md"), "--images", str(tmp_path)]) == 2
    assert "tables.py: error: `RESULTS` must be a results.json of today's recipes/run.py" in capsys.readouterr().err


@pytest.mark.skipif(not RESULTS, reason="no recipe has results yet")
def test_the_document_is_made_of_the_results(tmp_path):
    write_page(RESULTS, tmp_path / "docs" / "results.md", tmp_path / "docs" / "images" / "results")
    made = (tmp_path / "docs" / "results.md").read_bytes()
    assert made == (ROOT / "docs" / "results.md").read_bytes()
    drawn = {path.name for path in (tmp_path / "docs" / "images" / "results").iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs" / "images" / "results").iterdir()}


def test_a_recipe_of_few_losses_is_not_among_the_mean_ranks(tmp_path):
    many, few = results_of(), results_of(recipe="toy2", title="Toy 2")
    for name in ("poly", "l1", "mbls"):
        many["methods"][name] = method_of([values_at(0.1)])
    losses = [name for name, method in few["methods"].items() if method["role"] == "loss"]
    for name in losses[2:]:
        del few["methods"][name]
    part = write(tmp_path, many, few).split("## Mean ranks\n")[1].split("\n## ")[0]
    assert "Over one recipe and all metrics of the tables" in part
    assert "Without what has few losses: Toy 2.\n" in part
    assert "| poly" in part
