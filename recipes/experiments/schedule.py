"""All trainings of a recipe in order, here or in several processes; what is finished is not done again."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch

from diffident.errors import InputError, WorkerError, did_you_mean
from experiments.linking import needs_dynamics
from experiments.materials import Log, Materials, Place
from experiments.recipe import Recipe
from experiments.runs import choose, train_run, train_trial

Task = tuple[Callable[..., Any], tuple]
Runner = Callable[[list[Task]], Iterator[tuple[Task, Any]]]
"""Does tasks, and gives each with its result when it is done."""
_opened: list[Materials] = []


def chosen_methods(recipe: Recipe, names: list[str] | None) -> list[str]:
    """The methods of these names, or of sweeps of these names, in the recipe's order; all where none are named.

    Raises:
        InputError: a name that is neither; names near ones.
    """
    if not names:
        return list(recipe.methods)
    sweeps = {method.point.sweep for method in recipe.methods.values() if method.point is not None}
    for name in names:
        if name not in recipe.methods and name not in sweeps:
            known = [*(name for name, one in recipe.methods.items() if one.point is None), *sweeps]
            raise InputError(f"`--methods` must be of the recipe; got {name!r}. {did_you_mean(name, known)}")
    return [
        name
        for name, method in recipe.methods.items()
        if name in names or (method.point is not None and method.point.sweep in names)
    ]


def tune_all(materials: Materials, names: list[str], run: Runner, log: Log) -> None:
    """Train every value of every strength that the methods need; test data are not opened."""
    recipe = materials.recipe
    trials: list[Task] = [
        (train_trial, (name, option, value))
        for name in dict.fromkeys(recipe.source_of(recipe.methods[name]).name for name in names)
        for option, values in recipe.methods[name].tune.items()
        for value in values
    ]
    for number, (task, _) in enumerate(run(trials), start=1):
        log(f"Tried {number} of {len(trials)}: {task[1][0]}, {task[1][1]} {task[1][2]}.")


def train_all(materials: Materials, names: list[str], run: Runner, log: Log, finished: Callable[[], object]) -> None:
    """Train the methods with every seed, one seed after the other; `finished` is called after each run."""
    recipe, out = materials.recipe, materials.place.out
    runs: list[Task] = []
    for seed in range(recipe.seeds):
        for name in names:
            chosen = choose(recipe, out, recipe.methods[name])
            assert chosen is not None  # every value has been tried by `tune_all`
            runs.append((train_run, (name, seed, chosen)))
    for number, (task, _) in enumerate(run(runs), start=1):
        log(f"Trained {number} of {len(runs)}: {task[1][0]}, seed {task[1][1]}.")
        finished()


def trained_methods(recipe: Recipe, names: list[str]) -> list[str]:
    """What must be trained for these methods: themselves, or what an ensemble is of."""
    methods = [recipe.methods[name] for name in names]
    return list(dict.fromkeys(one.name if one.ensemble is None else one.ensemble.of for one in methods))


@contextmanager
def runner(materials: Materials, jobs: int) -> Iterator[Runner]:
    """What does tasks: this process, or a pool of others; each has the recipe's number of threads."""
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(materials.place.threads)
        try:
            yield lambda tasks: ((task, task[0](materials, *task[1])) for task in tasks)
        finally:
            torch.set_num_threads(before)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_open, initargs=(materials.place,)) as pool:

        def run(tasks: list[Task]) -> Iterator[tuple[Task, Any]]:
            futures = {pool.submit(_do, *task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool:
                raise WorkerError(
                    "a training process must live to its end; one died, perhaps for want of memory. Give fewer --jobs."
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

        yield run


def prepare(materials: Materials, names: Iterable[str]) -> None:
    """Open and extract what trainings need, once, before several processes would."""
    _ = materials.train, materials.validation
    for name in names:
        method = materials.recipe.methods[name]
        if materials.needs_difficulty(method) and not needs_dynamics(materials.recipe, method):
            materials.features(method.difficulty, materials.raw_train)


def _open(place: Place) -> None:
    os.environ["OMP_NUM_THREADS"] = str(place.threads)
    torch.set_num_threads(place.threads)
    _opened[:] = [Materials(place, extracts=False)]


def _do(function: Callable[..., Any], arguments: tuple) -> Any:
    return function(_opened[0], *arguments)
