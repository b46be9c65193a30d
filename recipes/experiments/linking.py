"""How the methods of a recipe hang together: what they are like, ensembles, sweeps, and their settings."""

import itertools
import re
from typing import Any

from diffident.errors import InputError, did_you_mean
from diffident.losses import LOSSES
from diffident.settings import TrainingSettings, load_settings
from experiments.checking import Faults, take
from experiments.recipe import Method, Recipe, SweepPoint

_OF_LOSSES = {
    *(
        "preset",
        "temperature",
        "normalizer",
        "distrust",
        "relabel",
        "curriculum",
        "soft_targets",
        "restart",
        "mixup",
        "mixup_until",
    ),
    *(option for kind in LOSSES.values() for option in kind.options),
}
"""Settings that go with a loss; `mixup` and `curriculum` are among them, as trainings with these have no dynamics."""


def check_links(recipe: Recipe, faults: Faults) -> None:
    """Note methods that are named and not there, or not of the kind that is wanted."""
    plain = [name for name, method in recipe.methods.items() if method.loss]
    trained = [name for name, method in recipe.methods.items() if method.ensemble is None]
    if not recipe.methods:
        faults.add("`methods` must have at least one; got none. Write [methods.cross-entropy].")
        return
    for key in ("baseline", "ours"):
        name = getattr(recipe, key)
        if name not in recipe.methods:
            faults.add(f"`{key}` must be one of the methods; got {name!r}. {did_you_mean(name, recipe.methods)}")
    for name, method in recipe.methods.items():
        if method.like is not None and method.like not in plain:
            faults.add(
                f"`methods.{name}.like` must be a method with a loss of its own; got {method.like!r}. "
                f"{did_you_mean(method.like, plain)}"
            )
        if method.like is not None and method.tune:
            faults.add(f"`methods.{name}.tune` must not be used with `like`, which takes what was chosen there.")
        if method.ensemble is not None and method.ensemble.of not in trained:
            faults.add(
                f"`methods.{name}.ensemble.of` must be a method that is trained; got {method.ensemble.of!r}. "
                f"{did_you_mean(method.ensemble.of, trained)}"
            )


def sweep_methods(
    name: str, values: dict[str, Any], recipe: Recipe, faults: Faults
) -> list[tuple[Method, dict[str, Any]]]:
    """The points of a sweep, and what a recipe would say of each."""
    where = f"sweeps.{name}"
    faults.unknown(where, values, ("vary", "values", "methods"))
    vary = take(values, "vary", str, "", faults, where)
    if not vary:
        faults.add(f"`{where}.vary` must be given; got none. For example data.limit.")
    points, found = [], values.get("methods", [recipe.ours])
    for key, several in (("values", values.get("values")), ("methods", found)):
        if not isinstance(several, list) or not several:
            faults.add(f"`{where}.{key}` must be a list; got {several!r}.")
            return []
    for method in found:
        if method not in recipe.methods or recipe.methods[method].ensemble is not None:
            known = [other for other, one in recipe.methods.items() if one.ensemble is None]
            faults.add(
                f"`{where}.methods` must be ones that are trained; got {method!r}. {did_you_mean(str(method), known)}"
            )
            continue
        like = recipe.methods[method].like or method
        for value in values["values"]:
            own: dict[str, Any] = {vary.rpartition(".")[2]: value}
            for table in reversed(vary.split(".")[:-1]):
                own = {table: own}
            point = SweepPoint(name, vary, value, method)
            points.append((Method(point_name(method, name, value), like=like, point=point), {"like": like, **own}))
    return points


def point_name(method: str, sweep: str, value: Any) -> str:
    """The name of a point, which is that of a folder too."""
    return f"{method}@{sweep}={re.sub(r'[^A-Za-z0-9.+-]+', '-', str(value))}"


def settings_of(recipe: Recipe, method: Method, seed: int, chosen: dict[str, Any] | None = None) -> TrainingSettings:
    """The settings of a run.

    Args:
        recipe: Of the method.
        method: What is trained.
        seed: Of the run.
        chosen: What was chosen for the method, or for what it is like.

    Raises:
        InputError: they do not go together.
    """
    source = recipe.source_of(method)
    values = {**recipe.training, **source.options, **(chosen or {}), **method.options}
    return load_settings(**{**values, "loss": source.loss, "seed": seed})


def needs_dynamics(recipe: Recipe, method: Method) -> bool:
    """Whether a method's weights are made of what another training saw, which must come first."""
    return LOSSES[recipe.source_of(method).loss].needs_weights and method.difficulty.needs_dynamics


def dynamics_settings(
    recipe: Recipe, method: Method, seed: int, chosen: dict[str, Any] | None = None
) -> TrainingSettings:
    """The settings of the training whose dynamics are scored: the method's, with the loss of the baseline.

    Args:
        recipe: Of the method.
        method: What is trained afterwards.
        seed: Of both runs.
        chosen: As in `settings_of`.

    Raises:
        InputError: they do not go together.
    """
    baseline, source = recipe.methods[recipe.baseline], recipe.source_of(method)
    own = {**source.options, **(chosen or {}), **method.options}
    values = {
        **recipe.training,
        **recipe.source_of(baseline).options,
        **baseline.options,
        **{key: value for key, value in own.items() if key not in _OF_LOSSES},
    }
    return load_settings(**{**values, "loss": recipe.source_of(baseline).loss, "seed": seed, "dynamics": True})


def check_settings(recipe: Recipe, faults: Faults) -> None:
    """Note settings that the library refuses, of every value that will be tried; what several methods share once."""
    said: set[str] = set()
    for name, method in recipe.methods.items():
        if not _is_trained(recipe, name):
            continue
        makers = [settings_of]
        if needs_dynamics(recipe, method) and _has_plain_baseline(recipe):
            makers.append(dynamics_settings)
        elif needs_dynamics(recipe, method):
            faults.add(
                f"`baseline` must be a single training without weights or `tune`, as training-dynamics are of it; got "
                f"{recipe.baseline!r}. Name another, or another `difficulty.method`."
            )
        trials = [{option: value} for option, values in method.tune.items() for value in values] or [{}]
        for make, trial in itertools.product(makers, trials):
            try:
                make(recipe, method, 0, trial)
            except InputError as error:
                if str(error) not in said:
                    faults.add(f"`methods.{name}`: {error}")
                said.add(str(error))


def _is_trained(recipe: Recipe, name: str) -> bool:
    """Whether there is such a method, no ensemble, whose loss is known."""
    method = recipe.methods.get(name)
    if method is None or method.ensemble is not None or (method.like or name) not in recipe.methods:
        return False
    return recipe.source_of(method).loss in LOSSES


def _has_plain_baseline(recipe: Recipe) -> bool:
    """Whether the baseline can be trained before anything else: no weights are needed, nothing is chosen."""
    if not _is_trained(recipe, recipe.baseline):
        return False
    source = recipe.source_of(recipe.methods[recipe.baseline])
    return not (LOSSES[source.loss].needs_weights or source.tune)
