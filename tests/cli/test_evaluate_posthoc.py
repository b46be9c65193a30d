import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffident.calibrators import calibrate
from diffident.cli import main
from diffident.records import Features, Predictions
from diffident.storage.calibrator_file import read_calibrator
from diffident.storage.evaluation_file import read_evaluation
from diffident.storage.features import save_features
from diffident.storage.predictions import read_predictions, write_predictions


def made(n, seed, shift=0.0):
    """Features, logits that are three times too sure, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    features = torch.randn(n, 6, generator=generator) * 2
    features[torch.arange(n), labels] += 3
    features[:, -1] += shift
    return features, features[:, :3] * 3, labels


@pytest.fixture
def files(tmp_path):
    """Features and predictions of every split."""
    for name, seed, shift in (("train", 0, 0), ("calibration", 1, 0), ("test", 2, 0), ("far", 3, 30)):
        features, logits, labels = made(240, seed, shift)
        ids = np.array([f"{name}{row}" for row in range(240)], dtype=object)
        order = torch.randperm(240, generator=torch.Generator().manual_seed(9))
        save_features(Features(ids[order.numpy()], features[order], labels[order]), tmp_path / f"{name}-features")
        write_predictions(Predictions(ids, logits, None if name == "far" else labels), tmp_path / f"{name}.parquet")
    return tmp_path


def evaluate(files, *arguments):
    return main(["evaluate", str(files / "test.parquet"), "--resamples", "20", *map(str, arguments)])


def all_features(files):
    return ["--features", *(f"{name}={files / name}-features" for name in ("train", "calibration", "test", "far"))]


def test_temperature_is_the_default_and_the_likelihood_is_said(files, capsys):
    out = files / "evaluation.json"
    assert evaluate(files, "--calibration", files / "calibration.parquet", "--out", out) == 0
    captured = capsys.readouterr()
    evaluation = read_evaluation(out)
    assert list(evaluation.calibrated) == ["temperature"]
    assert evaluation.calibrated["temperature"]["nll"].value < evaluation.metrics["nll"].value
    assert "temperature: NLL of the 240 calibration samples" in captured.err
    assert "after calibration" in captured.out
    assert captured.out.count("temperature") == 1


def test_everything_at_once(files, capsys):
    out, folder = files / "evaluation.json", files / "calibrators"
    arguments = ["--calibration", files / "calibration.parquet", "--calibrators", "all", "--save-calibrators", folder]
    arguments += ["--conformal", 0.1, "--abstain", 0.2, "--ood", f"far={files / 'far.parquet'}", "--detectors", "all"]
    arguments += [*all_features(files), "--train-predictions", files / "train.parquet", "--out", out]
    assert evaluate(files, *arguments) == 0
    captured = capsys.readouterr()
    evaluation = read_evaluation(out)
    assert len(evaluation.calibrated) == 8
    assert set(evaluation.conformal) == {"lac", "aps", "raps"}
    assert list(evaluation.abstention) == ["0.2"]
    assert evaluation.abstention["0.2"]["selective_risk"].value < 0.2
    detectors = evaluation.ood_detectors["far"]
    assert {"max-softmax", "energy", "relative-mahalanobis", "mahalanobis", "vim", "knn"} <= detectors.keys()
    assert detectors["mahalanobis"]["auroc"].value > 0.95
    assert detectors["max-softmax"] == evaluation.ood["far"]
    for title in ("after calibration", "prediction sets", "abstaining", "detectors of far"):
        assert title in captured.out
    test = read_predictions(files / "test.parquet")
    calibrated = calibrate(read_calibrator(folder / "vector.json"), test.logits)
    nll = -float(calibrated.gather(1, test.labels[:, None]).mean())
    assert evaluation.calibrated["vector"]["nll"].value == pytest.approx(nll)
    assert len(list(folder.iterdir())) == 8


def test_all_leaves_out_what_cannot_be(files, capsys):
    for name in ("test", "far"):
        file = files / f"{name}.parquet"
        found = read_predictions(file)
        write_predictions(Predictions(found.ids, torch.log_softmax(found.logits, dim=1), found.labels), file)
    assert evaluate(files, "--ood", f"far={files / 'far.parquet'}", "--detectors", "all", "--json") == 0
    detectors = json.loads(capsys.readouterr().out)["ood_detectors"]["far"]
    assert list(detectors) == ["max-softmax", "max-logit", "entropy", "generalized-entropy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--calibration", "{test}"],
            "must share no sample with the test split; got 240 of 240 in both: first 'test0'",
        ),
        (["--calibration", "{far}"], "`calibration` must have labels; got none"),
        (["--calibrators", "temperature"], "`--calibrators` must be used with --calibration"),
        (["--conformal", "0.1"], "`--conformal` must be used with --calibration"),
        (["--abstain", "0.1"], "`--abstain` must be used with --calibration"),
        (["--detectors", "energy"], "`--detectors` must be used with --ood"),
        (["--calibration", "{calibration}", "--calibrators", "temprature"], "Did you mean `temperature`"),
        (["--calibration", "{calibration}", "--conformal", "2"], "`--conformal` must be in (0, 1); got 2."),
        (["--calibration", "{calibration}", "--abstain", "0"], "`--abstain` must be in (0, 1); got 0."),
        (["--calibration", "{calibration}", "--calibrators", "difficulty-temperature"], "Give --features train=..."),
        (["--ood", "far={far}", "--detectors", "enrgy"], "Did you mean `energy`"),
        (["--ood", "far={far}", "--detectors", "pytorch-ood:Nothing"], "must be a class of pytorch-ood"),
        (
            ["--ood", "far={far}", "--detectors", "knn"],
            "`knn` must have features of train; got none. Give --features train=FEATURES.",
        ),
        (
            ["--ood", "far={far}", "--detectors", "knn", "--features", "train={test}-features"],
            "`knn` must have features of test; got none. Give --features test=FEATURES.",
        ),
        (
            ["--ood", "far={far}", "--detectors", "vim", "--features", "train={test}-features", "test={test}-features"],
            "`vim` must have logits of train; got none. Give --train-predictions FILE.",
        ),
        (["--seed", "3"], "`--seed` must be used with --corruptions"),
        (["--features", "train"], "`--features` must be NAME=FILE with a name of its own; got `train`"),
        (["--features", "tests=x"], "`--features` must be of known samples; got 'tests'. Did you mean `test`"),
        (["--features", "test={test}-features"], "`--features` must be used with --calibration or --detectors"),
        (["--corruptions", "digits:test"], "`--corruptions` must be used with a RUN"),
    ],
)
def test_wrong_input_is_one_line(files, arguments, message, capsys):
    names = {name: files / f"{name}.parquet" for name in ("calibration", "test", "far")}
    plain = [text.replace("{test}-features", str(files / "test-features")).format(**names) for text in arguments]
    assert evaluate(files, *plain) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.fixture
def run(tmp_path):
    """A small classifier of dark and light pictures, and its test pictures."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for label, level in (("dark", 60), ("light", 190)):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(generator.normal(level, 8, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{number:02d}.png")
    arguments = ["--model", "cnn-small", "--loss", "cross-entropy", "--epochs", "3", "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "train"), *arguments]) == 0
    return tmp_path


def test_corruptions_of_a_run(run, capsys):
    arguments = ["evaluate", str(run / "run"), "--corruptions", str(run / "test"), "--kinds", "contrast", "brightness"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((run / "run/robustness.json").read_text())
    assert list(result["corrupted"]) == ["contrast", "brightness"]
    assert set(result["corrupted"]["contrast"]) == set("12345")
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "accuracy by corruption and severity" in captured.out
    assert "Mean corruption error" in captured.err


def test_predictions_of_corrupted_samples(run, capsys):
    outs = [run / f"{number}.parquet" for number in range(3)]
    for out, extra in zip(
        outs, ([], ["--corruption", "gaussian-noise:5"], ["--corruption", "gaussian-noise:5"]), strict=True
    ):
        assert main(["predict", str(run / "run"), str(run / "test"), "--out", str(out), *extra]) == 0
    clean, noisy, again = (read_predictions(out) for out in outs)
    assert list(clean.ids) == list(noisy.ids)
    assert not torch.equal(clean.logits, noisy.logits)
    assert torch.equal(noisy.logits, again.logits)
    assert main(["predict", str(run / "run"), str(run / "test"), "--out", "x", "--corruption", "fog"]) == 2
    assert "must be KIND:SEVERITY; got 'fog'" in capsys.readouterr().err
