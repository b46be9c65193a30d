import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cli.test_cli import fail
from tests.unit.test_gaussian import make_data

from diffident.cli import main
from diffident.difficulties import METHODS
from diffident.difficulties.training_dynamics import measure_epoch
from diffident.records import Features
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.dynamics import write_epoch
from diffident.storage.features import save_features
from diffident.storage.label_features import write_label_features


def save(path, seed=0, order=None, names=None, encoder="encoder"):
    """A feature store of 120 samples of 4 classes."""
    values, labels = make_data(seed=seed, dtype=torch.float32)
    ids = np.array([f"s{row}" for row in range(120)], dtype=object)
    order = np.arange(120) if order is None else order
    save_features(Features(ids[order], values[order], labels[order], names, f"{encoder}-{seed}"), path)
    return str(path)


@pytest.fixture
def features(tmp_path):
    return save(tmp_path / "one")


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "difficulty.parquet")


def test_help_lists_every_method_in_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for name, kind in METHODS.items():
        settings = f" (--set {', '.join(kind.options)})" if kind.options else ""
        assert f"    {name:<18} {kind.summary}{settings}" in lines


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.needs is None])
def test_every_method_scores_features(method, features, out, capsys):
    if method == "knn":
        pytest.importorskip("faiss")
    assert main(["score", features, "--out", out, "--method", method]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "120 samples, 4 classes" in captured.err.splitlines()[0]
    table = read_difficulty_table(out)
    assert table.metadata["method"] == method
    assert (table.margin > 0).sum() > 0


def test_options_of_a_method(features, out, capsys):
    assert main(["score", features, "--out", out, "--method", "kmeans", "--set", "clusters=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_centroids"] == 4
    assert main(["score", features, "--out", out, "--shrinkage", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shrinkage"] == 0.5


def test_zero_shot_with_texts_in_a_file_or_in_the_store(tmp_path, features, out):
    texts = torch.eye(4, 6)
    file = str(write_label_features(texts, tmp_path / "texts.safetensors"))
    assert main(["score", features, "--out", out, "--method", "zero-shot", "--label-features", file]) == 0
    first = read_difficulty_table(out).difficulty
    write_label_features(texts, features)
    assert main(["score", features, "--out", out, "--method", "zero-shot"]) == 0
    assert (read_difficulty_table(out).difficulty == first).all()


def test_zero_shot_with_the_text_tower_of_an_encoder(tmp_path, out, monkeypatch):
    features = save(tmp_path / "named", names=("a", "b", "c", "d"))
    seen = []

    def encode(spec, names):
        seen.append((spec, names))
        return torch.eye(4, 6)

    monkeypatch.setattr("diffident.encoders.label_text.encode_label_names", encode)
    spec = "open_clip:ViT-B-32/tag"
    assert main(["score", features, "--out", out, "--method", "zero-shot", "--label-features", spec]) == 0
    assert seen == [(spec, ("a", "b", "c", "d"))]
    assert main(["score", features, "--out", out, "--method", "zero-shot"]) == 2  # `encoder-0` has no text tower


def test_zero_shot_with_the_text_tower_of_the_features_own_encoder(tmp_path, out, monkeypatch):
    features = save(tmp_path / "named", names=("a", "b", "c", "d"), encoder="open_clip:ViT-B-32/tag")
    seen = []

    def encode(spec, names):
        seen.append(spec)
        return torch.eye(4, 6)

    monkeypatch.setattr("diffident.encoders.label_text.encode_label_names", encode)
    for _ in range(2):  # the second time they are there
        assert main(["score", features, "--out", out, "--method", "zero-shot"]) == 0
    assert seen == ["open_clip:ViT-B-32/tag-0"]


def test_training_dynamics_of_a_run(tmp_path, out, capsys):
    ids, labels = np.array(["a", "b"]), np.array([0, 1])
    for epoch in (1, 2):
        write_epoch(
            tmp_path, epoch, ids, labels, measure_epoch(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor(labels))
        )
    arguments = ["score", str(tmp_path), "--out", out, "--method", "training-dynamics"]
    assert main(arguments) == 0
    table = read_difficulty_table(out)
    assert table.difficulty.tolist() == [-2, 1]
    assert table.nearest_labels.tolist() == [0, 0]
    assert "training-dynamics: statistic aum, epochs 2" in capsys.readouterr().err
    assert main([*arguments, "--set", "statistic=forgetting"]) == 0
    assert read_difficulty_table(out).difficulty.tolist() == [0, 2]


@pytest.mark.parametrize("combine", ["mean-rank", "stack"])
def test_several_features_are_combined(combine, tmp_path, features, out, capsys):
    order = np.random.default_rng(0).permutation(120)
    other = save(tmp_path / "two", seed=1, order=order)
    assert main(["score", features, other, "--out", out, "--combine", combine]) == 0
    printed = capsys.readouterr().err
    assert "Features 1 and 2 (encoder-0, encoder-1): Spearman correlation of difficulty" in printed
    table = read_difficulty_table(out)
    assert table.ids[5] == "s5"
    assert table.metadata["encoder"] == "encoder-0 + encoder-1"
    assert table.metadata["combine"] == combine
    agreement = table.metadata["agreement"][0]
    assert (
        f"difficulty {agreement['spearman']:.4g}, Jaccard index of suspects {agreement['jaccard_suspects']:.4g}."
        in printed
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "kmean"], "got 'kmean'. Did you mean `kmeans`"),
        (["--method", "knn", "--set", "neighbors=3"], "Did you mean `neighbours`"),
        (["--method", "knn", "--set", "neighbours=few"], "`neighbours` must be a whole number; got 'few'"),
        (["--set", "encoder=1"], "`encoder` must be an option of the difficulty method 'rmd'; got encoder=1"),
        (["--set", "shrinkage"], "`--set` must be key=value; got 'shrinkage'"),
        (
            ["--method", "knn", "--shrinkage", "0.1"],
            "`--shrinkage` must be used with rmd, posterior, squared-distance; got",
        ),
        (["--label-features", "x.npz"], "`--label-features` must be used with zero-shot; got --method rmd"),
        (["--method", "zero-shot"], "label_features.safetensors, which is not there"),
        (["--method", "zero-shot", "--label-features", "open_clip:ViT-B-32/t"], "`label_names` must name at least one"),
        (["--method", "training-dynamics"], "`dynamics` must be a run with dynamics.parquet"),
        (["--method", "training-dynamics", "--label-column", "x"], "must be one run with its own labels"),
        (["--combine", "stack"], "`--combine` must be used with several FEATURES; got one"),
    ],
)
def test_wrong_calls_are_one_line(arguments, message, features, out, capsys):
    assert message in fail(capsys, "score", features, "--out", out, *arguments)


def test_a_changed_byte_of_a_shard_is_one_line(features, out, capsys):
    shard = Path(features) / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert fail(capsys, "score", features, "--out", out) == (
        f"diffident: error: `FEATURES` must be whole; {shard} is missing or was changed. "
        "Extract again into a new folder."
    )
    assert not Path(out).exists()


def test_wrong_combinations_are_one_line(tmp_path, features, out, capsys):
    fewer = save(tmp_path / "fewer", order=np.arange(100))
    assert "20 of 120 ids of the first features are not in features 2: first 's100'" in fail(
        capsys, "score", features, fewer, "--out", out
    )
    assert "Did you mean `mean-rank`" in fail(capsys, "score", features, features, "--out", out, "--combine", "mean")
    assert "must have one FEATURES" in fail(capsys, "score", features, features, "--out", out, "--method", "zero-shot")


def test_audit_takes_the_same_methods(tmp_path, features, capsys):
    arguments = ["audit", features, "--out", str(tmp_path / "audit"), "--json"]
    assert main([*arguments, "--method", "kmeans", "--set", "clusters=1"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "kmeans"
    assert "must be given the folder of a run" in fail(capsys, *arguments, "--method", "training-dynamics")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["training-dynamics", "--set", "dynamics=foo"], "`dynamics` must be an option of the difficulty method"),
        (["zero-shot", "--set", "label_features=3"], "3"),
        (
            ["self-confidence", "--set", "seed=99999999999999999999999"],
            "`seed` must be below 2^63; got 99999999999999999999999",
        ),
    ],
)
def test_options_that_cannot_be(options, message, features, out, capsys):
    assert message in fail(capsys, "score", features, "--out", out, "--method", *options)


def test_the_index_of_the_features_is_not_overwritten(features, capsys):
    before = Path(features, "index.parquet").read_bytes()
    expected = f"`--out` must not be an input, which would be lost; got {features}/index.parquet for both."
    assert expected in fail(capsys, "score", features, "--out", f"{features}/index.parquet")
    assert Path(features, "index.parquet").read_bytes() == before
    assert main(["score", features, "--out", f"{features}/difficulty.parquet"]) == 0


def test_features_that_say_nothing_are_scored_with_a_note(tmp_path, out, capsys):
    np.savez(tmp_path / "constant.npz", features=np.ones((40, 3)), labels=np.arange(40) % 4)
    constant = str(tmp_path / "constant.npz")
    note = "Note: within the classes no feature varies beyond rounding: every difficulty is 0. Use other features."
    for command in (["score", constant, "--out", out], ["audit", constant, "--out", str(tmp_path / "audit")]):
        assert main([*command, "--method", "posterior"]) == 0
        assert note in capsys.readouterr().err
    assert (tmp_path / "audit/audit.html").exists()
