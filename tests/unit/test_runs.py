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
