"""`docs/training.md`: settings, losses, difficulty methods and their options, with the code's defaults and ranges."""

import dataclasses
import inspect
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from diffident import neighbours
from diffident.cli import build_parser
from diffident.data import open_dataset
from diffident.difficulties import METHODS, open_method, score_features, weights
from diffident.difficulties.training_dynamics import TrainingDynamics
from diffident.errors import InputError
from diffident.extraction import extract
from diffident.losses import LOSSES, flsd, logit_norm, mmce
from diffident.losses.difficulty_aware import DOUBT, DOUBT_ON_FEATURES, PRESETS
from diffident.models import Preprocessor, build_model, images
from diffident.models.preprocessing import _TAKES
from diffident.settings import MODEL_PREFIXES, MODELS, TrainingSettings, load_settings
from diffident.settings.checks import _CHOICES, _RANGES, kind_of
from diffident.storage.runs import _WITHOUT_EFFECT
from diffident.training import augmentation, doubt, optimization, train
from diffident.training.tuning import ALPHAS, TEMPERATURES

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split())
COMMANDS = re.findall(r"^    (diffident (?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
FIELDS = {field.name: field for field in dataclasses.fields(TrainingSettings)}
NONE = np.zeros((1, 1), dtype=np.float32)
DYNAMICS = TrainingDynamics(np.array(["a"]), np.zeros(1, int), np.zeros((1, 1), int), NONE, NONE, NONE)
NUMBERS_OF_LOSSES = {option for kind in LOSSES.values() for option in kind.options} - {"temperature"}


def table(heading):
    """The rows of the table under a heading, by each name in code of their first column."""
    text = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert text is not None
    lines = [line for line in text[1].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    assert {len(row) for row in cells} == {lines[1].count("---")}
    return {name: row for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


GROUPS = ("Loss and difficulty", "Data and model", "Optimisation", "Machine and logs")
SETTINGS = {name: row for group in GROUPS for name, row in table(group).items()}
MODEL_ROWS, LOSS_ROWS, METHOD_ROWS = table("Models"), table("Losses"), table("Difficulty methods")
FILES = table("The folder of a run")


def shown(value):
    """A value as the page writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def bounds(text):
    """Least and largest value and whether the least is none itself, of `at least 0`, `above 0, at most 1` and such."""
    inside = re.search(r"in \[([-\d.]+), ([-\d.]+)\]", text)
    if inside is not None:
        return float(inside[1]), float(inside[2]), False
    most = re.search(r"at most ([-\d.]+)", text)
    low = re.search(r"(above|at least) (-?\d+)", text)
    assert low is not None, text
    return float(low[2]), math.inf if most is None else float(most[1]), low[1] == "above"


def options_of(text):
    """What stands after each option of a cell: its default, then its values."""
    return {name: rest.strip() for name, rest in re.findall(r"`(\w+)`([^`;]*(?:`alpha`[^`;]*)?)", text)}


def test_every_setting_is_on_the_page_once():
    assert sorted(SETTINGS) == sorted(FIELDS)
    assert sum(len(table(group)) for group in GROUPS) == len(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_defaults_of_settings_are_the_code_s(name):
    default, cell = FIELDS[name].default, SETTINGS[name][1]
    if name in NUMBERS_OF_LOSSES or name == "model":
        assert cell == ("none" if name == "model" else "by loss")
        return
    resolved = getattr(TrainingSettings("mlp"), "may_restart" if name == "restart" else name)
    value = re.search(r"`([^`]+)`", cell)
    assert value is not None
    assert value[1] == shown(resolved if default is None else default)
    by_others = {"epochs", "learning_rate", "weight_decay", "dropout", "width"}
    assert cell.startswith("by ") == (name in by_others or name == "warmup")


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - NUMBERS_OF_LOSSES - {"model", "loss"}))
def test_the_values_of_settings_are_the_code_s(name):
    cell = SETTINGS[name][2]
    if name in _CHOICES or kind_of(FIELDS[name]) is bool:
        choices = _CHOICES.get(name, ("true", "false"))
        assert re.findall(r"`([^`]+)`", cell) == list(choices) or set(re.findall(r"`([^`]+)`", cell)) == set(choices)
    else:
        assert bounds(cell) == _RANGES[name]


def test_defaults_that_depend_on_the_schedule_the_loss_and_the_preset():
    found = re.search(r"([\d.]+) of `one-cycle`, ([\d.]+) of the others", SETTINGS["warmup"][3])
    assert found is not None
    for schedule in _CHOICES["schedule"]:
        expected = float(found[1 if schedule == "one-cycle" else 2])
        assert TrainingSettings("mlp", schedule=schedule).warmup == expected
    for loss in LOSSES:
        for model in ("mlp", "python:my_models:net"):
            of_weights = 0.7 if LOSSES[loss].needs_weights and model != "mlp" else 0.3
            assert TrainingSettings(model, loss).temperature == {"logit-norm": 0.04}.get(loss, of_weights)
        assert (TrainingSettings("mlp", loss).normalizer, TrainingSettings("mlp", loss).distrust) == ("rank", True)
    assert (
        SETTINGS["temperature"][1]
        == "`0.3`; with difficulty 0.7, unless the model is `mlp` or pre-trained; with `logit-norm` 0.04"
    )
    assert list(PRESETS) == ["paper"]
    values = ", ".join(f"`{key}` {shown(value)}" for key, value in PRESETS["paper"].items())
    assert f"{values}." in SETTINGS["preset"][3]


def test_the_models_that_relabel_are_those_that_the_page_names():
    page = SETTINGS["relabel"][1]
    assert page.startswith("`false`; `true` of losses with difficulty, if `distrust` is true, for ")
    for loss in LOSSES:
        assert TrainingSettings("cnn-small", loss).relabel == LOSSES[loss].needs_weights
        assert not TrainingSettings("cnn-small", loss, distrust=False).relabel
    for model in (*MODELS, "timm:resnet18", "torchvision:resnet18", "transformers:bert", "python:my_models:net"):
        named = f"`{re.sub('resnet(18|34|50)', 'resnet…', model)}`" in page
        assert TrainingSettings(model, "difficulty-aware").relabel == named
        unless_pretrained = f"`{model.partition(':')[0]}:`" in page
        assert TrainingSettings(model, "difficulty-aware", pretrained=False).relabel == (named or unless_pretrained)


def test_every_model_is_on_the_page_with_its_defaults():
    assert set(MODEL_ROWS) == {*MODELS, *MODEL_PREFIXES}
    for model, (_, data, epochs, rate, decay, dropout, _) in MODEL_ROWS.items():
        settings = TrainingSettings(f"{model}a:b" if model in MODEL_PREFIXES else model)
        values = (settings.epochs, settings.learning_rate, settings.weight_decay)
        assert tuple(map(shown, values)) == (epochs, rate, decay)
        assert settings.dropout == (0 if dropout == "–" else float(dropout))
        key = next(key for key in _TAKES if model == key or (key == "resnet18-32px" and model.startswith("resnet")))
        assert set(data.split(", ")) == set(_TAKES[key])


@pytest.mark.parametrize("model", MODELS)
def test_the_widths_of_models_are_the_code_s(model):
    shapes = {"ngrams": ("grams", (5,)), "mlp": ("vector", (7,))}
    kind, shape = shapes.get(model, ("image", (3, 32, 32)))
    preprocessor = Preprocessor(kind, shape, ("a", "b"), (0.0,) * shape[0], (1.0,) * shape[0])
    width = int(MODEL_ROWS[model][6].split(",")[0])
    with torch.device("meta"):
        own, given = (build_model(TrainingSettings(model, width=number), preprocessor, 10) for number in (0, width))
    assert [value.shape for value in own.parameters()] == [value.shape for value in given.parameters()]


def test_every_loss_is_on_the_page_with_its_options():
    assert list(LOSS_ROWS) == list(LOSSES)
    for name, kind in LOSSES.items():
        assert set(options_of(LOSS_ROWS[name][2])) == set(kind.options), name


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in LOSSES for option in LOSSES[name].options])
def test_the_defaults_and_ranges_of_losses_are_the_code_s(name, option):
    text, default = options_of(LOSS_ROWS[name][2])[option], LOSSES[name].resolved()[option]
    assert re.split(r",? ", text)[0] == ("none" if default is None else f"{default:g}")
    low, high, is_open = bounds(text)
    for value in (low + 1 if is_open else low, min(high, 1e6)):
        load_settings(None, [f"{option}={value:g}" if value % 1 else f"{option}={int(value)}"], model="mlp", loss=name)
    for value in (low if is_open else low - 1, *([] if math.isinf(high) else [high + 1])):
        with pytest.raises(InputError, match=f"`{option}` must be"):
            load_settings(None, [f"{option}={int(value)}"], model="mlp", loss=name)


def test_the_others_of_mlp():
    said = re.search(r"take `others` ([\d.]+) where alpha is not given, and weights of `temperature` ([\d.]+)", FLAT)
    assert said is not None
    settings = TrainingSettings("mlp", "difficulty-aware")
    assert (settings.others, settings.temperature) == (float(said[1]), float(said[2]))
    assert settings.changed(alpha=0.1).others == LOSSES["difficulty-aware"].resolved(alpha=0.1)["others"] == 1


@pytest.mark.parametrize("name", LOSSES)
def test_the_papers_of_losses_are_those_of_their_docstrings(name):
    cited = set(re.findall(r"\d{4}\.\d{5}", LOSS_ROWS[name][3]))
    assert cited <= set(re.findall(r"\d{4}\.\d{5}", LOSSES[name].loss_class.__doc__ or ""))
    assert cited or name in ("cross-entropy", "difficulty-smoothing", "difficulty-temperature", "mmce")


def test_losses_that_need_difficulty_or_take_no_texts_say_so():
    assert {name for name, row in LOSS_ROWS.items() if "--difficulty" in row[4]} == {
        name for name, kind in LOSSES.items() if kind.needs_weights
    }
    assert {name for name, row in LOSS_ROWS.items() if "no texts" in row[4]} == {
        name for name, kind in LOSSES.items() if kind.mixes
    }
    coupled = [f"`{name}`" for name, kind in LOSSES.items() if kind.couples]
    assert f"Not for {', '.join(coupled[:-1])} and {coupled[-1]}, which compare the samples of a batch." in PAGE


def test_every_difficulty_method_is_on_the_page_with_its_options():
    assert list(METHOD_ROWS) == list(METHODS)
    for name, kind in METHODS.items():
        options = options_of(METHOD_ROWS[name][2])
        assert set(options) == {*kind.options, *([kind.needs] if kind.needs else [])}, name


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in METHODS for option in METHODS[name].options])
def test_the_defaults_and_values_of_difficulty_options_are_the_code_s(name, option):
    module = open_method(name)
    (kind,) = (value for key, value in vars(module).items() if key.endswith("Options") and key != "Options")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    text, given = options_of(METHOD_ROWS[name][2])[option], {"dynamics": DYNAMICS} if "dynamics" in fields else {}
    assert re.split(r",? ", text)[0] == shown(fields[option].default)
    if option == "shrinkage":
        assert text == "auto, or in [0, 1]"
        return
    right, wrong = re.findall(r"\w+", text.partition(":")[0].replace(", or ", " ")), ["another"]
    if re.search("at least|above", text):
        low, _, is_open = bounds(text)
        right, wrong = ([low + 0.001], [low]) if is_open else ([int(low)], [int(low) - 1])
    for value in right:
        kind(**given, **{option: value})
    with pytest.raises(InputError, match=f"`{option}` must be"):
        kind(**given, **{option: wrong[0]})


@pytest.mark.parametrize("name", METHODS)
def test_the_papers_of_difficulty_methods_are_those_of_their_docstrings(name):
    cited = re.findall(r"\d{4}\.\d{5}", METHOD_ROWS[name][3])
    assert set(cited) <= set(re.findall(r"\d{4}\.\d{5}", open_method(name).__doc__ or ""))
    assert cited or name in ("posterior", "gmm")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (weights.MOST_DISTRUST, "(`distrust` above {:g})"),
        (flsd._BOUND, "gamma_low where p_y < {:g} and gamma elsewhere"),
        (logit_norm._LEAST_NORM, "norms below {0:g} count as {0:g}"),
        (mmce._WIDTH, "exp(-abs(q_i - q_j) / {:g})"),
        (optimization._MOMENTUM, "Nesterov momentum {:g}"),
        (optimization._ONE_CYCLE_START, "from a {:g}th to the peak"),
        (augmentation._LEAST_SIDE, "for RGB images of {} px and more"),
        (images._LARGEST_OWN_SIDE, "or {} where that has a longer side"),
        (neighbours._EXACT_ROWS, "auto is exact up to {:,} samples"),
        (doubt._MOST, "Above {:g} it is how many"),
        (doubt._DOUBT_BY_HEART, "as doubt rises from 0.4 to {:g}"),
        (doubt._OTHERS_BY_HEART, "it falls to {:g}, and"),
        (doubt._FIRST, "as doubt rises from {:g} to 0.6"),
        (doubt._TEMPERATURE_BY_HEART, "the temperature of the weights to {:g} if it is higher, as doubt rises"),
        (doubt._HIGHEST, "a half; it ends at {:g}."),
        (doubt._LEAST, "below {:g} there is no bonus."),
        (doubt._HIGHEST, "`mlp` and `ngrams` begin with {:g}, for at most"),
        (100 * doubt._FULL_SHARE, "for at most {:g} % of the epochs, never in the last"),
        (doubt._STEPS_TO_GET_SURE, "never in the last {:g} steps"),
        (doubt._FULL_UNTIL_GAP, "until training accuracy is more than {:g} above validation accuracy"),
        (doubt._FIRST, "Then it is {:g}, at least until"),
        (doubt._FIRST, "it starts at {0:g}, stays there for three tenths"),
        (doubt._FIRST_FINE_TUNED, "unless `pretrained` is false, start at {:g}."),
        (DOUBT, "Without validation data it is {:g} throughout, "),
        (DOUBT_ON_FEATURES, "throughout, {:g} of `mlp`, and nothing is learnt."),
        (inspect.signature(train).parameters["checkpoint_seconds"].default, "at most every {:g} seconds"),
    ],
)
def test_other_numbers_are_the_code_s(value, text):
    assert text.format(value) in PAGE.replace("\n", " ")


def test_fractions_in_words_are_the_code_s():
    assert (doubt._UNTOUCHED, augmentation._CROP_FRACTION) == (0.3, 8)
    assert doubt._FASTER_RISE == 3
    assert "rises three times as fast as it falls" in PAGE.replace("\n", " ")
    assert "padded by an eighth" in PAGE


def test_what_a_resumed_run_may_have_otherwise():
    names = [f"`{name}`" for name in _WITHOUT_EFFECT]
    assert f"but for {', '.join(names[:-1])} and {names[-1]};" in PAGE.replace("\n", " ")


def test_alpha_auto_tries_what_the_page_says():
    assert (len(ALPHAS), len(TEMPERATURES)) == (6, 3)
    assert "of six alphas and, for losses with difficulty, three temperatures" in PAGE
    users = [f"`{name}`" for name, kind in LOSSES.items() if "alpha" in kind.options and not kind.mixes]
    said = re.search(r"trainings\. For (.*?); or", PAGE.replace("\n", " "))
    assert said is not None
    assert sorted(re.findall(r"`[^`]+`", said[1])) == sorted(users)


def test_the_commands_have_the_options_that_there_are():
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        words = shlex.split(command.replace("\\\n", " "))
        assert build_parser(words[1]).parse_args(words[1:]).command == words[1]


def test_the_config_of_the_page_trains(tmp_path):
    config = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert config is not None
    (tmp_path / "digits.toml").write_text(config[1], encoding="utf-8")
    settings = load_settings(tmp_path / "digits.toml", ["batch_size=32"], seed=1, epochs=1)
    assert (settings.learns, settings.batch_size, settings.seed) == ("doubt", 32, 1)
    data, validation = open_dataset("digits:train", limit=300), open_dataset("digits:validation")
    features = extract(data, "identity", out=tmp_path / "features")
    table = score_features(features.blocks, features.ids, features.labels, method="posterior")
    run = train(data, settings, out=tmp_path / "run", difficulty=table, validation=validation, test=validation)
    (line,) = run.read_metrics()
    assert line["doubt"] == 0.4
    assert {path.name for path in run.path.iterdir()} <= {name.partition("/")[0] for name in FILES}
    # A run's own config is one, and what it holds counts as given.
    again = load_settings(run.path / "config.toml", loss="logit-norm")
    assert (again.temperature, again.epochs) == (0.7, 1)
