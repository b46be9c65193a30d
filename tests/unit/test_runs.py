import json

import pytest

from diffident.errors import InputError
from diffident.settings import load_settings, settings_toml
from diffident.storage.runs import differing_settings, open_run

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
