"""Recipes' files: what they may say, and what is said of their faults."""

import re
from pathlib import Path

import pytest
from tests.small_recipe import SMALL

from diffident.errors import InputError
from experiments import reading
from experiments.reading import read_recipe
from experiments.recipe import Corruptions, DataChange, DataSpec, DifficultySpec, EnsembleSpec
from run import main

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_right_and_says_what_it_costs(path):
    assert {"cross-entropy", "difficulty-aware", "shuffled", "constant"} <= set(read_recipe(path).methods)
    header = path.read_text().split("\n\nextends")[0]
    for line in ("python recipes/run.py", "Hardware: ", "Time: ", "Versions: ", "Seeds: ", "Expected numbers: "):
        assert line in header
    assert all(line.startswith("#") for line in header.splitlines())


@pytest.mark.parametrize("name", ["cifar10_resnet18", "imagenet_resnet34"])
def test_trainings_are_counted_right(name):
    path = RECIPES / f"{name}.toml"
    recipe = read_recipe(path)
    trained = [method for method in recipe.methods.values() if method.ensemble is None]
    tuned = sum(bool(method.tune) for method in trained)
    total = len(trained) * recipe.seeds + tuned * reading.BUDGET
    said = f"{len(trained)} methods x {recipe.seeds} seeds + {tuned} strengths x {reading.BUDGET} values = {total}"
    assert said in path.read_text()


def test_methods_have_the_same_budget():
    for path in RECIPES.glob("*.toml"):
        tuned = [method.tune for method in read_recipe(path).methods.values() if method.tune]
        assert {len(values) for tune in tuned for values in tune.values()} <= {3}


def test_all_faults_are_said_at_once(file, tmp_path, capsys):
    wrong = ["training.modle=mlp", "difficulty.method=rdm", "methods.x.like=cross-entrpy", "seeds=0", "data.tset=a"]
    assert main([str(file), "--data", ".", "--out", str(tmp_path / "out"), "--set", *wrong]) == 2
    said = capsys.readouterr().err
    assert "5 entries are wrong. " in said
    for words in (
        "`training.modle` must be a known key; got 'mlp'. Did you mean `model`",
        "`difficulty.method` must be a known name; got 'rdm'. Did you mean `rmd`?",
        "`methods.x.like` must be a method with a loss of its own; got 'cross-entrpy'. Did you mean `cross-entropy`?",
        "`seeds` must be at least 1; got 0.",
        "`data.tset` must be a known key; got 'a'. Did you mean `test`?",
    ):
        assert words in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("methods.x={loss='focal', tune={gamma=[1.0]}}", "must be 3 values, as of every method; got [1.0]."),
        ("methods.x={loss='focal', gamma=-1.0}", "`methods.x`: `gamma` must be at least 0; got -1.0."),
        (
            "methods.x={like='difficulty-aware', tune={alpha=[1, 2, 3]}}",
            "`methods.x.tune` must not be used with `like`",
        ),
        ("methods.x={loss='focal', like='ensemble'}", "must have one of `loss` and `like`; got both."),
        ("methods.x.ensemble.of=y", "`methods.x.ensemble.of` must be a method that is trained; got 'y'."),
        ("methods.X.loss=focal", "must have names of small letters"),
        ("difficulty.method=zero-shot", "`difficulty.method` must be one of rmd, posterior, squared-distance, knn, "),
        ("sweeps.noise.values=3", "`sweeps.noise.values` must be a list; got 3."),
        ("sweeps.noise.methods=['ensemble']", "`sweeps.noise.methods` must be ones that are trained; got 'ensemble'."),
        ("methods.x={loss='focal', data={label_noise=2}}", "`methods.x.data.label_noise` must be at most 1, a share"),
        ("corruptions.kinds=['fogg']", "`corruptions.kinds` must be known names; got 'fogg'. Did you mean `fog`"),
        ("data=1", "`data` must be a table; got 1."),
        ("baseline=5", "`baseline` must be text; got 5."),
        ("seeds", "`--set` must be KEY=VALUE; got 'seeds'."),
        ("seeds.a=1", "must name a table before the dot; got 'seeds.a=1', where seeds is a value."),
    ],
)
def test_a_fault_is_named(file, entry, words):
    with pytest.raises(InputError) as error:
        read_recipe(file, [entry])
    assert words in str(error.value)


def test_a_file_goes_over_the_one_that_it_extends(file):
    above = file.with_name("above.toml")
    above.write_text(
        'extends = "small.toml"\nwithout = ["shuffled"]\n[training]\nepochs = 7\n[methods.focal]\nloss = "focal"'
    )
    recipe = read_recipe(above, ["training.width=9"])
    assert recipe.training == {"model": "mlp", "epochs": 7, "device": "cpu", "width": 9}
    assert "focal" in recipe.methods
    assert "shuffled" not in recipe.methods
    above.write_text('extends = "small.toml"\nwithout = ["shufled"]')
    with pytest.raises(InputError, match=r"got 'shufled' in .* Did you mean `shuffled`"):
        read_recipe(above)
    above.write_text('extends = "above.toml"')
    with pytest.raises(InputError, match="must not lead back"):
        read_recipe(above)


def test_every_key_is_documented():
    page = (RECIPES / "README.md").read_text()
    records = (DataSpec, DifficultySpec, DataChange, EnsembleSpec, Corruptions)
    inside = {name for record in records for name in record.__dataclass_fields__} - {"options"}
    for key in {*reading.TOP_KEYS, *reading.METHOD_KEYS, *inside, "vary", "values"}:
        assert (
            f"`{key}`" in page
            or f"`{key} = " in page
            or f"[{key}]" in page
            or f"[{key}." in page
            or f"{key} = " in page
        )
    assert {path.stem for path in RECIPES.glob("*.toml")} == set(re.findall(r"\((\w+)\.toml\)", page))
