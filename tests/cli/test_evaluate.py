import json

import numpy as np
import pytest

from diffident.cli import main
from diffident.records import DifficultyTable
from diffident.storage.difficulty_table import write_difficulty_table


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    ids = [f"s{number}" for number in range(40)]
    logits, labels = generator.normal(size=(40, 3)), generator.integers(0, 3, 40)
    np.savez("p.npz", logits=logits, labels=labels, ids=ids)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.savez("called.npz", logits=probs, labels=labels, ids=ids)
    write_table("difficulty.parquet", ids[::-1])
    return tmp_path


def write_table(path, ids):
    zeros, count = np.zeros(len(ids)), np.zeros(len(ids), dtype=np.int64)
    values = np.arange(len(ids), dtype=np.float64)
    write_difficulty_table(DifficultyTable(np.array(ids, dtype=object), count, values, zeros, count, zeros), path)


def test_difficulty_is_joined_by_id_and_classes_are_listed(work, capsys):
    command = ["evaluate", "p.npz", "--difficulty", "difficulty.parquet", "--by-class", "--resamples", "10"]
    assert main([*command, "--json", "--out", "e.json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((work / "e.json").read_text())
    groups = content["by_difficulty"]
    assert [(group["low"], group["high"], group["num_samples"]) for group in groups[:2]] == [(0, 3, 4), (4, 7, 4)]
    hardest = np.load("p.npz")  # the table lists the samples backwards: the hardest are the first
    right = hardest["logits"][:4].argmax(axis=1) == hardest["labels"][:4]
    assert groups[-1]["metrics"]["accuracy"]["value"] == right.mean()
    assert sum(group["num_samples"] for group in content["by_class"]) == 40
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "by difficulty, easiest first" in printed
    assert "36 to 39" in printed
    assert "by class" in printed


def test_probabilities_that_the_file_calls_logits(work, capsys):
    assert main(["evaluate", "called.npz"]) == 2
    assert "Say --probs" in capsys.readouterr().err
    assert main(["evaluate", "called.npz", "--probs", "--json", "--resamples", "0"]) == 0
    called = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "p.npz", "--json", "--resamples", "0"]) == 0
    assert called["nll"]["value"] == pytest.approx(json.loads(capsys.readouterr().out)["nll"]["value"])


def test_probs_reads_the_probabilities_beside_logits_and_refuses_logits(work, capsys):
    logits = np.random.default_rng(1).normal(size=(40, 3))
    probs = np.full((40, 3), 1 / 3)
    np.savez("both.npz", logits=logits, probs=probs, labels=np.arange(40) % 3)
    np.savez("logits.npz", logits=logits, labels=np.arange(40) % 3)
    assert main(["evaluate", "both.npz", "--probs", "--json", "--resamples", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["nll"]["value"] == pytest.approx(np.log(3))
    assert main(["evaluate", "both.npz", "--json", "--resamples", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["nll"]["value"] > 1.2
    assert main(["evaluate", "logits.npz", "--probs"]) == 2
    assert "of logits.npz. If these are logits, leave out --probs (in Python `probs=True`)." in capsys.readouterr().err


def test_one_sample_is_one_and_an_abstention_without_a_threshold_has_none(work, capsys):
    rows = np.random.default_rng(1).normal(size=(41, 3))
    np.savez("one.npz", logits=rows[:1], labels=[0])
    np.savez("others.npz", logits=rows[1:], labels=np.arange(40) % 3)
    assert main(["evaluate", "one.npz", "--calibration", "others.npz", "--abstain", "0.01", "--resamples", "9"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 sample, 3 classes")
    assert "none" in printed
    assert "inf" not in printed
    assert "-0.0000" not in printed


def test_ids_that_do_not_match(work, capsys):
    write_table("other.parquet", [f"s{number}" for number in range(39)])
    assert main(["evaluate", "p.npz", "--difficulty", "other.parquet"]) == 2
    assert "1 of 40 ids of p.npz are not in other.parquet: first 's39'" in capsys.readouterr().err


def test_without_resamples_there_are_no_intervals(work, capsys):
    logits = np.random.default_rng(1).normal(size=(40, 3))
    np.savez("c.npz", logits=logits, labels=np.arange(40) % 3, ids=[f"c{number}" for number in range(40)])
    posthoc = ["--ood", "far=c.npz", "--calibration", "c.npz", "--conformal", "0.1", "--detectors", "max-logit"]
    grouped = ["--by-class", "--difficulty", "difficulty.parquet"]
    assert main(["evaluate", "p.npz", "--resamples", "0", *grouped, *posthoc, "--out", "e.json"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("40 samples, 3 classes ")
    assert "nan" not in printed
    assert "low" not in printed
    assert main(["report", "e.json", "--figures", "figures", "--out", "r.html"]) == 0
    lines = (work / "figures/metrics-e.md").read_text().splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["metric", "value"]
    page = (work / "r.html").read_text(encoding="utf-8")
    assert "95 %" not in page.partition("<main")[2].partition("<script")[0]
    assert "<bdi>low</bdi>" not in page
