"""Alpha and temperature of the entropy bonus, chosen on held-out data by a short sweep.

Criterion: mean negative log-likelihood of the held-out labels, a proper score, so that neither too sure nor too unsure
wins. Cost: one training on the remaining data for each alpha, and for losses with difficulty one more for each other
temperature at the best alpha: with the default grids eight trainings, on four fifths of the data where none are
given for validation.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.losses import LOSSES
from diffident.metrics.accuracy import nll_of_logits
from diffident.records import DifficultyTable
from diffident.settings import TrainingSettings
from diffident.storage.atomic import write_text
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import RunFolder, check_free
from diffident.training.checks import check_apart, check_settings, checked_parts
from diffident.training.progress import Report
from diffident.training.workflow import train

ALPHAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
TEMPERATURES = (0.3, 0.7, 1.5)
ALPHA_FILE = "alpha.json"
_HELD_OUT_PARTS = 5


@dataclass(frozen=True)
class Trial:
    """One training of the sweep.

    Attributes:
        alpha: Strength of the bonus.
        temperature: Of the weights.
        nll: Mean negative log-likelihood of the held-out labels, nats; lower is better.
        standard_error: Of that mean over the held-out samples.
    """

    alpha: float
    temperature: float
    nll: float
    standard_error: float


@dataclass(frozen=True)
class AlphaChoice:
    """The best trial's settings, and all trials.

    Attributes:
        alpha: Of the trial with the least negative log-likelihood, the earlier among equals.
        temperature: Of that trial.
        num_held_out: Samples that the trials were judged on.
        trials: In the order they were trained.
    """

    alpha: float
    temperature: float
    num_held_out: int
    trials: tuple[Trial, ...]


def train_with_chosen_alpha(
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    out: str | Path,
    difficulty: DifficultyTable | str | Path | None = None,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    resume: bool = False,
    progress: Report | None = None,
    begun: Callable[[], None] | None = None,
    report: Callable[[Trial], None] | None = None,
) -> RunFolder:
    """Choose alpha and temperature, then train on all data; `alpha.json` in the run says how they were chosen.

    The trials are in `out` with `.trials` after its name, until the run is finished. Arguments and errors as for
    `train` and `choose_alpha`.
    """
    out = Path(out)
    check_free(out, resume)
    if settings.doubt is not None:
        raise InputError(f"`doubt` must not be set where alpha is `auto`; got {settings.doubt}. Leave one of them out.")
    if settings.curriculum and validation is None:
        raise InputError(
            "`validation` must be given to choose alpha with a curriculum, as it ends by them; got None and "
            f"curriculum={settings.curriculum}. Add --validation DATA."
        )
    checked_parts(dataset, validation, test)  # of the run to come, before the trials' time is spent
    check_settings(settings, dataset, validation)
    kept, trials = out / ALPHA_FILE, out.with_name(f"{out.name}.trials")
    shared = {"difficulty": difficulty, "validation": validation, "begun": begun}
    choice = (
        read_choice(kept) if kept.exists() else choose_alpha(dataset, settings, folder=trials, report=report, **shared)
    )
    chosen = settings.changed(alpha=choice.alpha, temperature=choice.temperature)
    run = train(dataset, chosen, out=out, test=test, resume=resume, progress=progress, **shared)
    write_choice(choice, kept)
    shutil.rmtree(trials, ignore_errors=True)
    return run


def choose_alpha(
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    folder: str | Path,
    difficulty: DifficultyTable | str | Path | None = None,
    validation: Dataset | None = None,
    alphas: Sequence[float] = ALPHAS,
    temperatures: Sequence[float] = TEMPERATURES,
    begun: Callable[[], None] | None = None,
    report: Callable[[Trial], None] | None = None,
) -> AlphaChoice:
    """Train with each alpha, then at the best with each temperature, and take the best on held-out data.

    Args:
        dataset: Labelled training data.
        settings: Of the run to come; its temperature is that of the first sweep.
        folder: For the trials' runs and the choice; where it is there, the sweep goes on.
        difficulty: As for `train`.
        validation: What to judge on; by default every fifth sample of each class, which the trials do not train on.
        alphas: Strengths to try.
        temperatures: Temperatures to try.
        begun: As for `train`, of every trial.
        report: Called with each trial.

    Raises:
        InputError: the loss has no strength alpha, or nothing can be held out; as `train`.
        ResumeError: the folder holds trials with other settings or data.
    """
    # The alpha of losses that mix is of a Beta distribution: no strength, and 0.5 is little.
    users = [name for name, loss in LOSSES.items() if "alpha" in loss.options and not loss.mixes]
    if settings.loss not in users:
        raise InputError(
            f"`alpha` must be the strength of a loss's bonus or penalty, to be `auto`; got the loss {settings.loss}. "
            f"Use {', '.join(users)}."
        )
    folder = Path(folder)
    validation, _ = checked_parts(dataset, validation, None)
    check_apart(dataset, validation, "alpha")
    if validation is None:
        dataset, validation = hold_out(dataset, settings.seed)
    trials: list[Trial] = []

    def attempt(alpha: float, temperature: float) -> None:
        if any((trial.alpha, trial.temperature) == (alpha, temperature) for trial in trials):
            return
        chosen = settings.changed(alpha=alpha, temperature=temperature)
        out = folder / f"alpha-{alpha:g}-temperature-{temperature:g}"
        shared = {"difficulty": difficulty, "validation": validation, "begun": begun}
        run = train(dataset, chosen, out=out, resume=out.exists(), **shared)
        trials.append(_judged(chosen, run.predictions("validation")))
        if report is not None:
            report(trials[-1])

    for alpha in alphas:
        attempt(alpha, _given(settings.temperature))
    best = _best(trials)
    if LOSSES[settings.loss].needs_weights and best.alpha > 0:
        for temperature in temperatures:
            attempt(best.alpha, temperature)
        best = _best(trials)
    choice = AlphaChoice(best.alpha, best.temperature, len(validation), tuple(trials))
    write_choice(choice, folder / ALPHA_FILE)
    return choice


def hold_out(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """The data without, and with only, every fifth sample of each class in a random order; none loses all."""
    if dataset.labels is None:
        raise InputError(f"`data` must have labels to train on; got none at {dataset.name}. Name a label column.")
    order = np.random.default_rng(seed).permutation(len(dataset))
    held = [rows[: len(rows) // _HELD_OUT_PARTS] for rows in _by_class(order, dataset.labels)]
    rows = np.sort(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)
    if not len(rows):
        raise InputError(
            f"`data` must have {_HELD_OUT_PARTS} samples of some class to hold one out; {dataset.name} has not. "
            "Give --validation DATA."
        )
    return dataset.select(np.setdiff1d(np.arange(len(dataset)), rows)), dataset.select(rows)


def _by_class(order: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    sorted_rows = order[np.argsort(labels[order], kind="stable")]
    return np.split(sorted_rows, np.flatnonzero(np.diff(labels[sorted_rows])) + 1)


def _judged(settings: TrainingSettings, predictions: Path) -> Trial:
    made = read_predictions(predictions)
    assert made.labels is not None
    terms = nll_of_logits(made.logits, made.labels)
    error = float(terms.std()) / math.sqrt(len(terms)) if len(terms) > 1 else math.nan
    return Trial(_given(settings.alpha), _given(settings.temperature), float(terms.mean()), error)


def _given(value: float | None) -> float:
    assert value is not None  # settings fill in the loss's defaults
    return value


def _best(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: trial.nll)


def write_choice(choice: AlphaChoice, file: Path) -> None:
    """Write `alpha.json`: the choice and its trials."""
    content = {"criterion": "nll", **asdict(choice)}
    for trial in content["trials"]:
        if math.isnan(trial["standard_error"]):  # of one sample, which JSON has no word for
            trial["standard_error"] = None
    write_text(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_choice(file: Path) -> AlphaChoice:
    """Read what `write_choice` wrote.

    Raises:
        InputError: it is no such file.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        trials = tuple(
            Trial(**{key: math.nan if value is None else value for key, value in trial.items()})
            for trial in values["trials"]
        )
        return AlphaChoice(float(values["alpha"]), float(values["temperature"]), int(values["num_held_out"]), trials)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"`alpha.json` must be that of a sweep; {file} is not. Delete it to sweep anew.") from None
