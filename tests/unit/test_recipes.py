"""The recipes: what is done to data, and a small recipe run from end to end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.small_recipe import SMALL

from diffident import difficulty_weights, evaluate
from diffident.encoders import open_encoder
from diffident.metrics import ece_of_chance
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import open_run
from experiments import schedule
from experiments.materials import Materials, Place, open_split, rearranged
from experiments.measures import members_of, seeds_of
from experiments.reading import read_recipe
from experiments.recipe import DataChange, DifficultySpec
from experiments.results import write_results
from run import main


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL)
    return path


def run_small(file, out, *more):
    return main([str(file), "--data", str(file.parent), "--out", str(out), "--set", "num_resamples=20", *more])


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert run_small(file, out) == 0
    return out


@pytest.fixture
def results(finished):
    return json.loads((finished / "results.json").read_text())


def predictions(out, method, seed, split="test"):
    return read_predictions(out / "runs" / method / f"seed-{seed}" / "predictions" / f"{split}.parquet")


# What is done to data


def test_shuffled_weights_are_the_same_ones_elsewhere(finished):
    table = read_difficulty_table(next((finished / "difficulty").glob("rmd-*.parquet")))
    shuffled = rearranged(table, DifficultySpec(shuffle=True), seed=1)
    assert (np.sort(shuffled.difficulty) == np.sort(table.difficulty)).all()
    assert (shuffled.difficulty != table.difficulty).mean() > 0.9
    assert (shuffled.difficulty != rearranged(table, DifficultySpec(shuffle=True), seed=2).difficulty).any()
    within = rearranged(table, DifficultySpec(shuffle_within_class=True), seed=1)
    for label in range(10):
        own = table.labels == label
        assert (np.sort(within.difficulty[own]) == np.sort(table.difficulty[own])).all()
    assert (within.difficulty != table.difficulty).any()
    assert np.allclose(rearranged(table, DifficultySpec(invert=True), seed=1).rank, 1 - table.rank)


def test_distrust_goes_where_its_difficulty_goes(finished):
    table = read_difficulty_table(next((finished / "difficulty").glob("*.parquet")))
    doubted = replace(table, distrust=table.rank, likely_labels=1 - table.labels)
    assert rearranged(doubted, DifficultySpec(), seed=1) is doubted
    assert rearranged(doubted, DifficultySpec(shuffle=True, of_believed=True), seed=1).likely_labels is not None
    shuffled = rearranged(doubted, DifficultySpec(shuffle=True), seed=1)
    np.testing.assert_array_equal(shuffled.distrust, shuffled.rank)
    assert (shuffled.distrust != doubted.distrust).any()
    assert shuffled.likely_labels is None  # left out, as another label would be knowledge
    assert rearranged(doubted, DifficultySpec(invert=True), seed=1).distrust is None
    constant = rearranged(doubted, DifficultySpec(constant=True), seed=1)
    assert constant.distrust is None
    assert (difficulty_weights(constant.difficulty) == 1).all()


@pytest.mark.parametrize("of_believed", [False, True])
def test_probabilities_go_to_others_of_the_same_label_or_become_their_mean(finished, of_believed):
    table = read_difficulty_table(next((finished / "difficulty").glob("rmd-*.parquet")))
    classes = np.tile([3, 7, 3], (len(table), 1))
    probs = np.stack([0.25 * table.rank, 1 - table.rank, 0.75 * table.rank], axis=1).astype(np.float32)
    distrust = np.where(np.arange(len(table)) % 3 == 0, 0.9, 0.2)
    table, moved = (
        replace(table, candidates=classes, candidate_probs=probs, distrust=distrust),
        np.ones(len(table), bool),
    )
    if of_believed:
        moved = distrust <= 0.2
    for how in ("shuffle", "shuffle_within_class", "constant"):
        found = rearranged(table, DifficultySpec(of_believed=of_believed, **{how: True}), seed=1)
        assert found.candidate_probs is not None
        whole = np.zeros((len(table), 8))
        np.add.at(whole, (np.arange(len(table))[:, None], found.candidates), found.candidate_probs)
        np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(whole[~moved][:, 3], table.rank[~moved], rtol=1e-6)
        for label in range(10):
            own = moved & (table.labels == label)
            if how == "constant":
                np.testing.assert_allclose(whole[own][:, 7], 1 - table.rank[own].mean(), rtol=1e-5)
            else:
                np.testing.assert_allclose(np.sort(whole[own][:, 3]), np.sort(table.rank[own]), rtol=1e-5)
        assert not np.allclose(whole[moved][:, 3], table.rank[moved])
    assert rearranged(table, DifficultySpec(invert=True), seed=1).candidates is classes


@pytest.mark.parametrize("how", ["shuffle", "shuffle_within_class", "invert", "constant"])
def test_controls_of_the_believed_leave_out_what_is_left_out_without_them(finished, how):
    table = read_difficulty_table(next((finished / "difficulty").glob("*.parquet")))
    distrust = np.where(np.arange(len(table)) % 3 == 0, 0.9, 0.2)
    doubted, believed = replace(table, distrust=distrust), distrust <= 0.2
    found = rearranged(doubted, DifficultySpec(of_believed=True, **{how: True}), seed=1)
    np.testing.assert_array_equal(found.distrust, distrust)
    weights = difficulty_weights(found.difficulty, distrust=found.distrust)
    np.testing.assert_array_equal(weights == 2, ~believed)
    before = difficulty_weights(doubted.difficulty, distrust=distrust)
    if how == "constant":
        assert (weights[believed] == 1).all()
    else:
        assert (weights[believed] != before[believed]).float().mean() > 0.8
    if how.startswith("shuffle"):
        np.testing.assert_array_equal(np.sort(weights[believed]), np.sort(before[believed]))


def test_difficulty_is_scored_on_the_labels_that_there_are(file, tmp_path):
    materials = Materials(Place(read_recipe(file), file.parent, tmp_path))
    noisy = materials.training_data(DataChange(label_noise=0.2, limit=150), seed=0)
    table = materials.table(DifficultySpec(encoder="glyphs"), noisy, seed=0)
    assert (table.labels == noisy.labels).all()
    flipped = noisy.labels != open_split(Path(), "digits:train[:200]").select(np.arange(150) * 200 // 150).labels
    assert table.difficulty[flipped].mean() > table.difficulty[~flipped].mean() + table.difficulty.std()


def test_features_can_be_made_before_and_learnt_from(file, finished, tmp_path):
    features = next((finished / "features").glob("glyphs-*/train"))
    recipe = read_recipe(file, ["data.inputs=features"])
    materials = Materials(Place(recipe, file.parent, tmp_path, features))
    assert materials.train.modality == "vector"
    assert (materials.train[3] == materials.features(recipe.difficulty, materials.raw_train).values[3].numpy()).all()
    assert not (tmp_path / "features").exists()
    assert materials.evaluated["ood-noisy"].labels is None
    assert len(materials.evaluated["ood-noisy"]) == 40


# A run


def test_the_value_of_least_validation_nll_is_taken(results, finished):
    tuning = results["methods"]["difficulty-aware"]["tuning"]
    assert [trial["alpha"] for trial in tuning["trials"]] == [0.1, 5.0, 0.2]
    best = min(tuning["trials"], key=lambda trial: trial["nll"])
    assert tuning["chosen"] == {"alpha": best["alpha"]}
    assert len({trial["nll"] for trial in tuning["trials"]}) == 3
    for method in ("difficulty-aware", "shuffled"):
        for run in results["methods"][method]["runs"]:
            assert run["options"] == {"alpha": best["alpha"], "others": 1.0, "temperature": 0.3, "normalizer": "rank"}
    trial = open_run(finished / "tuning" / "difficulty-aware" / "alpha-5.0")
    assert (trial.settings.seed, trial.settings.alpha) == (1000, 5.0)


def test_what_was_learnt_from_validation_data_is_among_the_results(file, tmp_path):
    arguments = [str(file), "--data", ".", "--out", str(tmp_path), "--seeds", "1", "--methods", "cross-entropy", "own"]
    assert main([*arguments, "--set", "methods.own.loss=difficulty-aware"]) == 0
    (run,) = json.loads((tmp_path / "results.json").read_text())["methods"]["own"]["runs"]
    lines = (tmp_path / "runs/own/seed-0/metrics.jsonl").read_text().splitlines()
    assert run["options"]["doubt"] == pytest.approx(json.loads(lines[-1])["doubt"], abs=1e-6)


def test_the_results_are_those_of_the_predictions(results, finished):
    for seed, run in enumerate(results["methods"]["cross-entropy"]["runs"]):
        test, outside = (predictions(finished, "cross-entropy", seed, split) for split in ("test", "ood-noisy"))
        found = evaluate(test.logits, test.labels, ood={"noisy": outside.logits}, num_resamples=0)
        assert run["before"]["ece"] == pytest.approx(found.metrics["ece"].value, abs=1e-6)
        confidence = torch.softmax(test.logits.double(), dim=1).amax(dim=1)
        assert run["before"]["ece_of_chance"] == pytest.approx(float(ece_of_chance(confidence)), abs=1e-6)
        assert run["before"]["ood/noisy"] == pytest.approx(found.ood["noisy"]["auroc"].value, abs=1e-6)
        scaled = evaluate(test.logits.double() / run["temperature"], test.labels, num_resamples=0)
        assert run["after"]["nll"] == pytest.approx(scaled.metrics["nll"].value, abs=1e-5)
        assert run["after"]["accuracy"] == run["before"]["accuracy"]


def test_an_ensemble_is_the_mean_of_its_members(results, finished):
    probs = [torch.softmax(predictions(finished, "cross-entropy", seed).logits.double(), 1) for seed in (2, 0)]
    labels = predictions(finished, "cross-entropy", 0).labels
    found = evaluate(probs=(probs[0] + probs[1]) / 2, labels=labels, num_resamples=0)
    run = results["methods"]["ensemble"]["runs"][2]
    assert run["before"]["nll"] == pytest.approx(found.metrics["nll"].value, abs=1e-6)
    assert run["before"]["nll"] < max(one["before"]["nll"] for one in results["methods"]["cross-entropy"]["runs"])


def test_members_are_counted_round_and_sets_of_them_once(file):
    recipe = read_recipe(file)
    assert members_of(recipe, "ensemble", 2) == [("cross-entropy", 2), ("cross-entropy", 0)]
    assert seeds_of(recipe, "ensemble") == [0, 1, 2]
    assert seeds_of(replace(recipe, seeds=2), "ensemble") == [0]
    assert seeds_of(replace(recipe, seeds=1), "ensemble") == []


def test_the_results_say_whose_features_difficulty_is_of(results, file, tmp_path):
    assert results["difficulty"] == {"method": "rmd", "encoder": "glyphs", "image_size": None}
    given = ["difficulty.encoder='timm:local-dir:/home/me/models/mobilenet.imagenet1k'", "difficulty.image_size=96"]
    materials = Materials(Place(read_recipe(file, given), file.parent, tmp_path))
    written = json.loads(write_results(materials, {}, None).read_text())["difficulty"]
    assert written == {"method": "rmd", "encoder": "timm:local-dir:mobilenet.imagenet1k", "image_size": 96}


def test_methods_are_compared_with_the_baseline_and_ours_with_all(results):
    pairs = {(one["method"], one["other"]) for one in results["comparisons"]["before"]["differences"]}
    ours, base = "difficulty-aware", "cross-entropy"
    others = {("shuffled", base), ("constant", base), ("ensemble", base), ("cross-entropy@noise=0.5", base)}
    assert pairs == {(ours, base), *others, (ours, "shuffled"), (ours, "constant"), (ours, "ensemble")}
    one = next(one for one in results["comparisons"]["after"]["differences"] if one["metric"] == "accuracy")
    means = {
        name: np.mean([run["after"]["accuracy"] for run in results["methods"][name]["runs"]])
        for name in (one["method"], one["other"])
    }
    assert one["difference"][0] == pytest.approx(means[one["method"]] - means[one["other"]], abs=2e-6)
    assert results["missing"] == {}


def test_a_second_run_trains_nothing_and_writes_the_same(file, finished, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    monkeypatch.setattr("diffident.training.workflow.launch", None)
    ledger = json.loads((out / "recipe.json").read_text())
    for spec in ledger["methods"].values():
        del spec["settings"]["mixup"]  # as from before there was such a setting
        spec["settings"]["loading"] = "workers"  # without effect
        if spec["difficulty"] is not None:
            del spec["difficulty"]["of_believed"]
    (out / "recipe.json").write_text(json.dumps(ledger))
    assert run_small(file, out) == 0
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_other_settings_for_the_same_name_are_an_error(file, finished, capsys):
    before = (finished / "results.json").read_bytes()
    assert run_small(file, finished, "--set", "training.epochs=3", "methods.difficulty-aware.tune.alpha=[1,2,3]") == 2
    said = capsys.readouterr().err
    assert "cross-entropy: epochs was 2, now 3." in said
    assert "tune was {'alpha': [0.1, 5.0, 0.2]}, now {'alpha': [1, 2, 3]}" in said
    assert run_small(file, finished, "--results-only", "--set", "methods.difficulty-aware.relabel=true") == 2
    assert "difficulty-aware: relabel was False, now True. " in capsys.readouterr().err
    assert run_small(file, finished, "--results-only", "--set", "methods.difficulty-aware.restart=false") == 2
    assert "difficulty-aware: restart was None, now False. " in capsys.readouterr().err
    assert run_small(file, finished, "--set", "data.test='digits:test[:99]'") == 2
    assert "set test: other samples" in capsys.readouterr().err
    assert (finished / "results.json").read_bytes() == before


def test_an_interrupted_run_goes_on(file, finished, tmp_path, monkeypatch):
    out, whole, done = tmp_path / "out", schedule.train_run, []

    def stop(materials, name, seed, chosen):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append((name, seed))
        whole(materials, name, seed, chosen)

    monkeypatch.setattr(schedule, "train_run", stop)
    assert run_small(file, out, "--methods", "ensemble") == 130
    partly = json.loads((out / "results.json").read_text())
    assert [len(method["runs"]) for method in partly["methods"].values()] == [2, 1]
    assert partly["missing"]["cross-entropy"] == [2]
    assert partly["comparisons"] is None
    assert run_small(file, out, "--results-only") == 0
    assert json.loads((out / "results.json").read_text())["comparisons"]["before"]["differences"]
    monkeypatch.setattr(schedule, "train_run", whole)
    assert run_small(file, out, "--methods", "ensemble") == 0
    for name in ("cross-entropy", "ensemble"):
        assert without_times(out)["methods"][name] == without_times(finished)["methods"][name]


def without_times(out):
    found = json.loads((out / "results.json").read_text())
    for method in found["methods"].values():
        for run in method["runs"]:
            assert run.pop("seconds") > 0
    return found


@pytest.mark.slow
def test_two_processes_give_the_same(file, finished, tmp_path):
    assert run_small(file, tmp_path / "out", "--jobs", "2") == 0
    assert without_times(tmp_path / "out") == without_times(finished)


def test_no_test_data_are_opened_for_tuning(file, tmp_path, capsys):
    (tmp_path / "test.parquet").write_text("no Parquet")
    arguments = [str(file), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--methods", "shuffled"]
    assert main([*arguments, "--set", "data.test=test.parquet"]) == 2
    assert "test.parquet is not" in capsys.readouterr().err
    found = (tmp_path / "out" / "tuning" / "difficulty-aware").glob("alpha-*/predictions/*")
    assert {path.name for path in found} == {"validation.parquet"}
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "shufled"], "`--methods` must be of the recipe; got 'shufled'. Did you mean `shuffled`?"),
        (["--seeds", "0"], "`--seeds` must be at least 1; got 0. Leave it out for 3."),
        (["--jobs", "0"], "`--jobs` must be at least 1; got 0."),
        (["--ood", "svhn"], "`--ood` must be NAME=SPEC; got 'svhn'."),
        (["--set", "data.test=gone.parquet"], "gone.parquet. Check the folder."),
    ],
)
def test_a_wrong_option_is_one_line(file, tmp_path, capsys, arguments, words):
    assert run_small(file, tmp_path / "out", *arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("run.py: error: ")
    assert words in said[0]


def test_hashed_words_know_words_and_nothing_else():
    encoder = open_encoder("python:encoders:hashed_words_512")
    rows = encoder.encode(["pay my bill", "bill my pay", "what is the time"])
    assert rows.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert abs(rows[0] @ rows[2]) < 0.5
