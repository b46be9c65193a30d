import json

import pytest

from diffident.errors import InputError
from diffident.report.inputs import learnt_facts
from diffident.settings import load_settings, settings_toml
from diffident.storage.runs import differing_settings, open_run
from diffident.training.logs import _numbers

DATA = {"modality": "text", "num_classes": 2, "ids": "x", "label_names": ["a", "b"]}


def test_open_run(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.toml"):
        open_run(tmp_path)
    (tmp_path / "config.toml").write_text(settings_toml(load_settings(model="ngrams"), data=DATA))
    with pytest.raises(InputError, match="must be finished"):
        open_run(tmp_path)
    (tmp_path / "model.safetensors").touch()
    run = open_run(tmp_path)
    assert run.label_names == ("a", "b")
    assert run.evaluation is None
    assert run.settings.model == "ngrams"


def test_differing_settings_ignore_the_device():
    old, new = load_settings(model="mlp", device="cpu"), load_settings(model="mlp", device="auto", width=5)
    assert differing_settings(old, new) == ["width was 0, now 5"]


@pytest.mark.parametrize(
    ("best", "doubt"), [([], 0.4), ([True, True, False, False], 0.2), ([None, None, True, False], 0.3)]
)
def test_what_was_learnt_is_that_of_the_epoch_whose_weights_are_kept(tmp_path, best, doubt):
    settings = load_settings(model="mlp", loss="difficulty-aware", patience=2 if best else 0)
    (tmp_path / "config.toml").write_text(settings_toml(settings, data=DATA))
    (tmp_path / "model.safetensors").touch()
    lines: list[dict] = [{"doubt": 0.1 * (epoch + 1)} for epoch in range(4)]
    for line, value in zip(lines, best, strict=False):
        line.update({} if value is None else {"best": value})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert open_run(tmp_path).learnt == {"doubt": pytest.approx(doubt)}


def test_where_runs_began_anew_is_known_and_in_the_report(tmp_path):
    settings = load_settings(model="cnn-small", loss="difficulty-aware")
    for name, epoch in (("a", 5), ("b", None), ("c", 3)):
        run = tmp_path / name
        run.mkdir()
        (run / "config.toml").write_text(settings_toml(settings, data=DATA))
        (run / "model.safetensors").touch()
        lines: list[dict] = [{"doubt": 0.25} for _ in range(9)]
        if epoch is not None:
            lines[epoch - 1]["restarts"] = True
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    runs = tuple(open_run(tmp_path / name) for name in "abc")
    assert [run.restarted_after for run in runs] == [5, None, 3]
    assert learnt_facts(runs, ["ours", "ours", "ours"]) == [
        ("doubt learnt by ours", "0.25, 0.25, 0.25"),
        ("epoch after which ours began anew", "5, none, 3"),
    ]
    assert [name for name, _ in learnt_facts(runs[1:2], ["ours"])] == ["doubt learnt by ours"]


def test_logs_of_numbers_get_numbers():
    found = _numbers({"epoch": 3, "restarts": True, "train_loss": 0.5})
    assert (found, type(found["restarts"])) == ({"restarts": 1.0, "train_loss": 0.5}, float)
