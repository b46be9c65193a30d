"""`diffident compare`: runs and predictions side by side, and which differences are real."""

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from diffident.cli.common import log, print_json, progress_bar
from diffident.cli.comparison_output import (
    comparison_to_dict,
    paired_to_dict,
    print_comparison,
    print_ranks,
    ranks_of,
)
from diffident.errors import InputError

EXAMPLE = "diffident compare runs/* --baseline cross-entropy"
ONE_DATA_SET = ""
"""Name of the data set of sources that name none."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="[[DATASET/]NAME=]RUN|FILE",
        help="evaluated runs, or predictions; of one name, those differ by seed (beside predictions, which have none, "
        "by their place). With several data sets: mean ranks",
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="what to compare against (default: cross-entropy if there, else the first)"
    )
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="metrics to test (default: the usual six)")
    parser.add_argument(
        "--probs", action="store_true", help="read probabilities, also where the files call them logits"
    )
    parser.add_argument(
        "--resamples", type=int, metavar="N", help="bootstrap resamples and permutations (default: 1000)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Compare the sources of every data set, and rank the methods where there are several."""
    opened = {name: _opened(sources, arguments.probs) for name, sources in _by_data_set(arguments.sources).items()}
    _check_same_methods(opened)
    found = {name: _compare_runs(runs, arguments) for name, runs in opened.items()}
    several = len(found) > 1
    ranks = ranks_of(list(found.values())) if several else {}
    if arguments.json:
        written = {
            name: comparison_to_dict(one, paired) | paired_to_dict(paired) for name, (one, paired) in found.items()
        }
        print_json({"datasets": written, "mean_ranks": ranks} if several else written.popitem()[1])
        return
    for name, (comparison, paired) in found.items():
        if name != ONE_DATA_SET:
            print(f"{name}:")
        print_comparison(comparison, paired)
    if ranks:
        print_ranks(ranks, len(found))


def _by_data_set(texts: list[str]) -> dict[str, list[tuple[str | None, Path]]]:
    """Names (None where not given) and paths of the sources of every data set."""
    found: dict[str, list[tuple[str | None, Path]]] = {}
    for text in texts:
        before, separator, path = text.partition("=")
        if Path(text).exists() or not separator:
            before, path = "", text
        data_set, slash, name = before.partition("/")
        if before and not (path and (name if slash else before)):
            raise InputError(
                f"`SOURCE` must be PATH, NAME=PATH or DATASET/NAME=PATH; got `{text}`. "
                f"For example: digits/cross-entropy=runs/1."
            )
        key = data_set if slash else ONE_DATA_SET
        found.setdefault(key, []).append(((name if slash else before) or None, Path(path)))
    if ONE_DATA_SET in found and len(found) > 1:
        text = found[ONE_DATA_SET][0][1]
        raise InputError(f"`SOURCE` must name its data set where others do; got {text}. Give DATASET/NAME=PATH.")
    return found


def _check_same_methods(opened: dict[str, list[tuple]]) -> None:
    """Refuse data sets whose methods cannot be ranked together."""
    methods = {data_set: dict.fromkeys(name for name, *_ in runs) for data_set, runs in opened.items()}
    for data_set, of_one in methods.items():
        for other, names in methods.items():
            missing = next((name for name in names if name not in of_one), None)
            if missing is not None:
                raise InputError(
                    f"`SOURCE` must give every data set the same methods; got {missing!r} for {other} and not for "
                    f"{data_set}. Give {data_set}/{missing}=PATH, or leave {other}/{missing} out."
                )


def _compare_runs(runs: list[tuple], arguments: argparse.Namespace):
    """The `Comparison` of the runs of one data set, and the `PairedComparison` where their predictions are there."""
    from diffident.comparison import compare
    from diffident.evaluation import NUM_RESAMPLES
    from diffident.paired import DEFAULT_METRICS, compare_predictions

    names = [name for name, *_ in runs]
    baseline = arguments.baseline or ("cross-entropy" if "cross-entropy" in names else names[0])
    predicted = [(name, seed, predictions) for name, seed, _, predictions in runs if predictions is not None]
    paired = None
    for option in ("metrics", "resamples"):
        if getattr(arguments, option) is not None and len(predicted) < len(runs):
            raise InputError(
                f"`--{option}` must be used where all runs have predictions/test.parquet; got some without. Leave it "
                "out."
            )
    if len(predicted) == len(runs):  # the first to see the samples: of other ones it names the ids
        metrics = arguments.metrics or DEFAULT_METRICS
        with progress_bar("compare") as progress:
            resamples = NUM_RESAMPLES if arguments.resamples is None else arguments.resamples
            paired = compare_predictions(
                predicted, baseline, metrics=metrics, num_resamples=resamples, progress=progress
            )
    return compare([(name, seed, evaluation) for name, seed, evaluation, _ in runs], baseline), paired


def _opened(sources: list[tuple[str | None, Path]], probs: bool) -> list[tuple]:
    """Name, seed, evaluation and predictions (None where a run has none) of every source."""
    from diffident.evaluation import evaluate
    from diffident.storage.evaluation_file import read_evaluation
    from diffident.storage.predictions import read_predictions
    from diffident.storage.runs import open_run

    stems = Counter(path.stem for name, path in sources if name is None and path.is_file())
    twice = next((stem for stem, count in stems.items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"`FILE` must be given as NAME=FILE where several are called {twice}; got no names. Name each."
        )
    for _, path in sources:
        _check_source(path)
    folders = {path: open_run(path) for _, path in sources if not path.is_file()}
    given = dict(zip(folders, names_of_runs(list(folders.values())), strict=True))
    # Files have no seeds: beside them, the first of each name goes with the first of another.
    found, places, by_place = [], Counter(), any(path not in folders for _, path in sources)
    if by_place and folders:
        log("Note: files have no seeds, so runs and files are compared by their place among those of their name.")
    seen: set[tuple[str, Path]] = set()
    for name, path in sources:
        folder = folders.get(path)
        name = name or (path.stem if folder is None else given[path])
        _check_once(name, path, seen)
        seed = places[name] if by_place or folder is None else folder.settings.seed
        places[name] += 1
        if folder is not None:
            test = folder.predictions("test")
            predictions = read_predictions(test) if test.exists() else None
            evaluation = read_evaluation(_evaluation_of(path, folder))
        else:
            predictions = read_predictions(path, probs=probs)
            if predictions.labels is None:
                raise InputError(f"`FILE` must have labels to be compared; got none at {path}. Predict labelled data.")
            evaluation = evaluate(predictions.logits, predictions.labels, num_resamples=0)
        found.append((name, seed, evaluation, predictions))
    return found


def _check_source(path: Path) -> None:
    if not path.exists():
        raise InputError(f"`SOURCE` must be a run or a file; got {path}, which is not there. Check the path.")
    if path.is_file() and path.suffix == ".json":
        raise InputError(
            f"`FILE` must be predictions, which are compared sample by sample; got {path}. Give the predictions that "
            "it was made from, or the folder of its run."
        )


def _check_once(name: str, path: Path, seen: set[tuple[str, Path]]) -> None:
    if (name, path.resolve()) in seen:
        raise InputError(f"`SOURCE` must be given once by a name; got {path} twice as {name!r}. Leave one out.")
    seen.add((name, path.resolve()))


def _evaluation_of(run: Path, folder) -> Path:
    if folder.evaluation is None:
        raise InputError(
            f"`RUN` must be evaluated; {run} has no evaluation.json. "
            f"Train with --test, or run: diffident evaluate {run}."
        )
    return folder.evaluation


def names_of_runs(folders: list) -> list[str]:
    """The loss with the options that are not the defaults, and whatever else differs between runs of that name."""
    bases = [name_of_run(folder.settings) for folder in folders]
    described = [
        {key: value for key, value in asdict(folder.settings).items() if key not in ("seed", "device")}
        | {"data": folder.data.get("fingerprint", "")[:8], "labels": folder.data.get("labels", "")[:8]}
        | {"weights": (folder.data.get("weights") or "")[:8]}
        for folder in folders
    ]
    names = []
    for base, about in zip(bases, described, strict=True):
        others = [other for name, other in zip(bases, described, strict=True) if name == base]
        differing = [f"{key}={about[key]}" for key in about if any(other[key] != about[key] for other in others)]
        names.append(" ".join([base, *differing]))
    return names


def name_of_run(settings) -> str:
    """The loss, with the options that are not the defaults."""
    from diffident.losses import LOSSES
    from diffident.settings import load_settings

    defaults = load_settings(model=settings.model, loss=settings.loss, pretrained=settings.pretrained)
    names = dict.fromkeys((*LOSSES[settings.loss].options, "temperature", "normalizer"))
    changed = [
        f"{name}={getattr(settings, name)}"
        for name in names
        if getattr(settings, name) not in (None, getattr(defaults, name))
    ]
    return " ".join([settings.loss, *changed])
