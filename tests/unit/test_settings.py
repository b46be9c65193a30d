import pickle

import numpy as np
import pytest

from diffident.errors import InputError
from diffident.losses import LOSSES, make_loss
from diffident.settings import TrainingSettings, load_settings, settings_toml
from diffident.settings.checks import value_faults
from diffident.settings.defaults import unused_by


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


def test_a_fault_of_a_file_is_found_by_its_name(tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text('model = "mlp"\nepochs = "x"\nlos = "focal"\noptimizer = "sdg"\nseed = -1\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_settings(config, ["alpha=-1"], seed=-2)
    text = str(caught.value)
    assert f"`epochs` must be a whole number; got 'x' in {config}. Leave it out for its default." in text
    assert f"got los='focal' in {config}. Did you mean `loss`" in text
    assert f"got 'sdg' in {config}. Did you mean `sgd`" in text
    assert "`alpha` must be at least 0; got -1.0. Leave it out" in text
    assert "`seed` must be at least 0 and at most 2147483647; got -2. Leave it out" in text  # not the file's
    config.write_text("model = 3\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"^`model` must be text; got 3 in {config}\. For example: mlp\.$"):
        load_settings(config)
    config.write_text('model = "mpl"\n', encoding="utf-8")
    with pytest.raises(InputError, match=rf"^`model` must be a known name; got 'mpl' in {config}\. Did you mean `mlp`"):
        load_settings(config)
    assert load_settings(config, model="mlp").model == "mlp"


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


@pytest.mark.parametrize(
    ("model", "others", "temperature"),
    [
        ("mlp", 0.2, 0.3),
        ("ngrams", 1.0, 0.7),
        ("resnet18-32px", None, 0.7),
        ("python:mine:net", None, 0.7),
        ("timm:resnet18", 0.2, 0.3),
        ("torchvision:resnet18", 0.2, 0.3),
        ("transformers:bert", 0.2, 0.3),
    ],
)
def test_entropy_and_temperature_follow_what_the_network_sees(model, others, temperature):
    ours = load_settings(model=model, loss="difficulty-aware")
    assert (ours.others, ours.temperature) == (others, temperature)
    relative = load_settings(model=model, loss="difficulty-smoothing")
    assert (relative.others, relative.temperature) == (None, temperature)
    known = load_settings(model=model, loss="difficulty-aware", alpha=0.2)
    assert (known.others, known.temperature) == (1.0, temperature)
    given = load_settings(model=model, loss="difficulty-aware", others=0.5, temperature=0.4)
    assert (given.others, given.temperature) == (0.5, 0.4)
    paper = load_settings(model=model, loss="difficulty-aware", preset="paper")
    assert (paper.others, paper.temperature) == (1.0, 0.7)
    from_scratch = load_settings(model=model, loss="difficulty-aware", pretrained=False)
    expected = {"mlp": (0.2, 0.3), "ngrams": (1.0, 0.7)}.get(model, (None, 0.7))
    assert (from_scratch.others, from_scratch.temperature) == expected
    assert from_scratch.leaves_others_open == (expected[0] is None)


def test_a_loss_brings_its_own_defaults():
    assert load_settings(model="mlp", loss="entropy").loss_options == {"alpha": 0.1}
    learnt = load_settings(model="mlp", loss="difficulty-aware")
    assert (learnt.loss_options, learnt.learns) == ({"others": 0.2}, "doubt")
    for given in ({"doubt": 0.1}, {"alpha": 0.1}, {"preset": "paper"}):
        settings = load_settings(model="mlp", loss="difficulty-aware", **given)
        assert settings.learns is None
    assert load_settings(model="mlp", loss="entropy").learns is None
    assert load_settings(model="mlp", loss="difficulty-aware", alpha=0.2).loss_options == {"alpha": 0.2, "others": 1.0}
    assert load_settings(model="mlp", loss="regmixup", eta=0.5).loss_options == {"alpha": 20.0, "eta": 0.5}
    settings = load_settings(model="mlp", loss="logit-norm")
    assert settings.temperature == 0.04
    assert settings.alpha is None
    assert "alpha" not in settings_toml(settings)
    assert load_settings(model="mlp").loss_options == {}
    assert load_settings(None, ["num_bins=5"], model="mlp", loss="soft-ece").loss_options["num_bins"] == 5


def test_the_paper_preset_and_what_is_set_beside_it():
    paper = load_settings(None, ["preset=paper"], model="mlp", loss="difficulty-aware")
    assert (paper.alpha, paper.others, paper.temperature, paper.normalizer) == (0.3, 1.0, 0.7, "none")
    assert paper.distrust is False
    mine = load_settings(None, ["preset=paper", "alpha=0.2", "normalizer=rank"], model="mlp", loss="difficulty-aware")
    assert (mine.alpha, mine.others, mine.temperature, mine.normalizer) == (0.2, 1.0, 0.7, "rank")
    doubting = load_settings(None, ["preset=paper", "doubt=0.2"], model="mlp", loss="difficulty-aware")
    assert (doubting.alpha, doubting.doubt, doubting.normalizer) == (None, 0.2, "none")
    ours = load_settings(model="mlp", loss="difficulty-aware")
    assert ours.distrust
    assert (ours.alpha, ours.doubt, ours.temperature, ours.normalizer) == (None, None, 0.3, "rank")
    with pytest.raises(InputError, match="must not both be given"):
        load_settings(None, ["alpha=0.2", "doubt=0.3"], model="mlp", loss="difficulty-aware")


def test_settings_of_losses_survive_toml(tmp_path):
    for loss in LOSSES:
        settings = load_settings(model="mlp", loss=loss)
        (tmp_path / "config.toml").write_text(settings_toml(settings), encoding="utf-8")
        assert load_settings(tmp_path / "config.toml") == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"model": "ngrams", "loss": "mixup"},
            "`loss` must not mix inputs where these are texts; got 'mixup' with model",
        ),
        ({"model": "ngrams", "loss": "regmixup"}, "`loss` must not mix inputs where these are texts"),
        ({"loss": "mixup", "dynamics": True}, "`dynamics` must be false with mixup"),
        ({"mixup": 0.4, "dynamics": True}, "`dynamics` must be false with mixup"),
        ({"mixup": 0.4, "model": "ngrams"}, "`mixup` must be 0 where inputs are texts; got 0.4 with model 'ngrams'"),
        ({"mixup": 0.4, "loss": "mixup"}, "`mixup` must be 0 with the loss 'mixup', which has its own alpha; got 0.4"),
        ({"mixup": 0.4, "loss": "crl"}, "`mixup` must be 0 with the loss 'crl', which compares the samples of a batch"),
        ({"mixup": 0.4, "loss": "regmixup", "dynamics": True}, "`mixup` must be 0 with the loss 'regmixup'"),
        ({"mixup": -1.0, "model": "ngrams"}, "`mixup` must be at least 0; got -1.0"),
        ({"loss": "mmce", "accumulation": 2}, "`accumulation` must be 1 with the loss 'mmce'.* got 2"),
        ({"loss": "crl", "devices": 2}, "`devices` must be 1 with the loss 'crl'.* got 2"),
        (
            {"loss": "entropy", "preset": "paper"},
            "`preset` must be one of the loss 'entropy'; got 'paper'. Take it with ",
        ),
        (
            {"loss": "difficulty-aware", "preset": "papre"},
            "`preset` must be a known name; got 'papre'. Did you mean `paper`",
        ),
        ({"loss": "difficulty-temperature", "alpha": 1.5}, r"`alpha` must be in \[0, 0.99\]; got 1.5"),
        ({"loss": "poly", "epsilon": -2}, "`epsilon` must be at least -1; got -2.0"),
        ({"loss": "focal", "gama": 2}, "`gama` must be a known setting; got gama=2. Did you mean `gamma`"),
    ],
)
def test_what_does_not_go_with_a_loss_is_said_at_once(given, message):
    with pytest.raises(InputError, match=f"^{message}"):
        load_settings(**{"model": "mlp", **given})


def test_faults_of_losses_come_with_all_others():
    with pytest.raises(InputError) as caught:
        load_settings(None, ["seed=1.5", "gamma=-1"], model="ngrams", loss="mixup", preset="paper")
    text = str(caught.value)
    assert text.startswith("4 settings are wrong. ")
    assert "`seed` must be" in text
    assert "`gamma` must be at least 0; got -1.0." in text
    assert "`preset` must be one of" in text
    assert "`loss` must not mix" in text


def test_a_wrong_type_of_a_loss_option():
    with pytest.raises(InputError, match=r"^`alpha` must be a number; got 'lots'\. Leave it out for its default\.$"):
        load_settings(model="mlp", loss="entropy", alpha="lots")


def test_a_whole_number_is_a_number():
    alpha, epochs = (TrainingSettings.__dataclass_fields__[name] for name in ("alpha", "epochs"))
    assert value_faults(alpha, 1) == []
    assert value_faults(alpha, True) == ["`alpha` must be a number; got True. Leave it out for its default."]
    assert value_faults(epochs, 1.5) == ["`epochs` must be a whole number; got 1.5. Leave it out for its default."]


def test_changed_settings_take_the_defaults_that_go_with_the_change_where_none_was_given():
    ours = load_settings(model="mlp", loss="difficulty-aware", seed=3)
    assert (ours.others, ours.changed(alpha=0.1).others, ours.changed(alpha=0.1).seed) == (0.2, 1.0, 3)
    assert ours.changed(alpha=0.1) == load_settings(model="mlp", loss="difficulty-aware", seed=3, alpha=0.1)
    given = load_settings(None, ["others=0.2"], model="mlp", loss="difficulty-aware")
    assert given == load_settings(model="mlp", loss="difficulty-aware")
    assert pickle.loads(pickle.dumps(given)).changed(alpha=0.1).others == 0.2
    assert ours.changed(model="ngrams").epochs == 20


def test_numbers_of_numpy_are_numbers():
    settings = load_settings(model="mlp", width=np.int64(8), dropout=np.float32(0.5), seed=np.int64(3))
    assert (settings.width, settings.dropout, settings.seed) == (8, 0.5, 3)
    assert make_loss("entropy", alpha=np.float64(0.25)).alpha == 0.25


@pytest.mark.parametrize(
    ("model", "schedule", "expected"),
    [
        ("timm:resnet18", "cosine", {"model": ["width", "dropout", "max_length"], "schedule": ["step_factor"]}),
        ("transformers:bert", "step", {"model": ["width", "dropout"]}),
        ("ngrams", "step", {"model": ["image_size", "pretrained"]}),
        ("wrn-28-10", "step", {"model": ["max_length", "pretrained"]}),
    ],
)
def test_settings_without_effect_are_known(model, schedule, expected):
    names = ("width", "image_size", "dropout", "max_length", "pretrained", "step_factor", "seed")
    assert unused_by({"model": model, "schedule": schedule}, names) == expected
