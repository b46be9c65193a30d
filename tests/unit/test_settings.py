import pytest

from diffident.errors import InputError
from diffident.settings import TrainingSettings, load_settings, settings_toml


def test_the_later_source_wins(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('model = "mlp"\nalpha = 1\nseed = 3\nepochs = 7\n')
    settings = load_settings(file, ["alpha=0.3", "epochs=8"], epochs=9, loss=None)
    assert (settings.model, settings.alpha, settings.seed, settings.epochs) == ("mlp", 0.3, 3, 9)
    assert settings.loss == "cross-entropy"


def test_model_defaults():
    settings = load_settings(model="ngrams")
    assert settings.epochs == 20
    assert load_settings(model="transformers:x").epochs == 3
    assert (settings.dropout, load_settings(model="mlp").dropout) == (0.5, 0.3)
    assert load_settings(model="ngrams", dropout=0.0).dropout == 0.0
    assert load_settings(model="ngrams", epochs=0, weight_decay=-1.0, dropout=-1.0) == settings
    assert load_settings(model="ngrams", epochs=4).learning_rate == 8e-3


def test_toml_round_trip(tmp_path):
    settings = load_settings(model="timm:resnet18", loss="entropy", alpha=0.25)
    text = settings_toml(settings, data={"name": 'a"b\\c\n', "label_names": ("é", "x"), "weights": None})
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    assert load_settings(tmp_path / "config.toml") == settings


def test_all_faults_at_once():
    with pytest.raises(InputError) as caught:
        load_settings(None, ["alhpa=0.1", "seed=1.5", "nonsense"], model="mlp", temperature=0.0, loss="entrpy")
    text = str(caught.value)
    assert text.startswith("5 settings are wrong. ")
    assert "Did you mean `alpha`" in text
    assert "`seed` must be a whole number; got 1.5." in text
    assert "`temperature` must be above 0; got 0.0." in text
    assert "Did you mean `entropy`" in text


def test_model_must_be_given():
    with pytest.raises(InputError, match="`model` must be given"):
        load_settings()
    with pytest.raises(InputError, match=r"must have a name after 'timm:'; got none\. For example: timm:resnet18"):
        load_settings(model="timm:")


@pytest.mark.parametrize("value", [True, "1"])
def test_wrong_types(value):
    with pytest.raises(InputError, match="must be a whole number"):
        load_settings(model="mlp", epochs=value)


def test_direct_settings_are_checked():
    with pytest.raises(InputError, match="`alpha` must be at least 0; got"):
        TrainingSettings("mlp", alpha=-1.0)
