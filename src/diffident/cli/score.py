"""`diffident score`: features to difficulty."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffident.cli.common import add_engine_options, check_out, log, opened_engine, print_json, progress_bar
from diffident.difficulties import METHODS, find_method
from diffident.errors import InputError
from diffident.options import check_option

EXAMPLE = "diffident score features/ --method posterior --out difficulty.parquet"
_PLAIN = ("method", "encoder", "num_samples", "num_classes", "num_features")
_NOTES = {
    "singleton_classes": ("class has one sample:", "classes have one sample:", "such difficulty says little"),
    "absent_classes": ("class has no sample:", "classes have no sample:", "nothing is nearest to such a class"),
    "constant_features": ("feature is constant:", "features are constant:", "such features carry nothing"),
    "num_distrusted": (
        "label is probably wrong;",
        "labels are probably wrong;",
        "training leaves such samples out or gives them their likely label, unless distrust=false is set",
    ),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "features",
        nargs="+",
        metavar="FEATURES",
        help="folder from `diffident extract`, or .npz with features, labels; several of the same samples are "
        "combined; for training-dynamics the folder of a run",
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the table to write, for example difficulty.parquet"
    )
    parser.add_argument("--label-column", metavar="NAME", help="score against these labels instead of the stored ones")
    parser.add_argument(
        "--combine",
        metavar="HOW",
        help="with several FEATURES: mean-rank (of each one's difficulty; the default) or stack (side by side)",
    )
    add_engine_options(parser)
    add_method_options(parser)


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options of the difficulty method."""
    lines = []
    for name, kind in METHODS.items():
        settings = f" (--set {', '.join(kind.options)})" if kind.options else ""
        lines.append(f"  {name:<18} {kind.summary}{settings}")
    group = parser.add_argument_group("difficulty methods", "\n".join(lines))
    group.add_argument("--method", default="rmd", metavar="NAME", help="one of these (default: rmd)")
    group.add_argument(
        "--shrinkage",
        metavar="auto|0..1",
        help="of rmd, posterior and squared-distance: towards a scaled identity (default: auto)",
    )
    group.add_argument(
        "--label-features",
        metavar="FILE|ENC",
        help="of zero-shot: .npz or .safetensors with label_features [K, d], or open_clip:ARCH/TAG, "
        "open_clip:local-dir:PATH or transformers:NAME to encode the class names (default: label_features.safetensors "
        "in FEATURES, made by their encoder where it has a text tower)",
    )
    group.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="key=value",
        help="other options of the method, for example neighbours=10",
    )


def method_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given for the chosen method."""
    kind = find_method(arguments.method)
    known = (
        *kind.options,
        *(("label_features",) if kind.needs == "label_features" else ()),
    )  # `dynamics` are read from the run
    options: dict[str, Any] = {}
    for text in arguments.overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InputError(f"`--set` must be key=value; got {text!r}. Write --set neighbours=10.")
        key = key.strip()
        options[key] = _parse(value.strip())
        check_option(key, options[key], known, f"difficulty method {arguments.method!r}")
        if key == "label_features":
            options[key] = value.strip()
    if arguments.shrinkage is not None:
        options["shrinkage"] = parse_shrinkage(arguments.shrinkage)
    if arguments.label_features is not None:
        options["label_features"] = arguments.label_features
    for name in ("shrinkage", "label_features"):
        users = [method for method, other in METHODS.items() if name in (*other.options, other.needs)]
        if name in options and arguments.method not in users:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(
                f"`{flag}` must be used with {', '.join(users)}; got --method {arguments.method}. Leave it out."
            )
    return options


def _parse(text: str) -> Any:
    from diffident.settings import parse_value

    return parse_value(text)


def parse_shrinkage(text: str) -> str | float:
    """`auto`, or a number from 0 to 1."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"`--shrinkage` must be `auto` or a number in [0, 1]; got `{text}`. Leave it out for `auto`.")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Score and say what was found."""
    options = method_options(arguments)
    if arguments.combine is not None and len(arguments.features) == 1:
        raise InputError("`--combine` must be used with several FEATURES; got one. Name them all, or leave it out.")
    check_out(arguments.out, *arguments.features, arguments.label_features, suffix=".parquet")
    with progress_bar("score") as progress:
        table = _score(arguments, options, progress)
    write(table, arguments.out)
    num_suspects = int((table.margin > 0).sum())
    if arguments.json:
        print_json({"difficulty": arguments.out, "num_suspects": num_suspects, **table.metadata})
        return
    describe(table)
    log(f"{num_suspects:,} of {len(table):,} samples are nearer to another class than to their label's.")
    log(f"The difficulty of every sample is in {arguments.out}.")


def _score(arguments: argparse.Namespace, options: dict[str, Any], progress: Callable[[int, int], None]):
    from diffident.storage.features import open_features

    if arguments.engine != "local" and (arguments.method != "rmd" or len(arguments.features) > 1):
        got = f"{len(arguments.features)} FEATURES" if arguments.method == "rmd" else f"--method {arguments.method}"
        raise InputError(f"`--engine {arguments.engine}` must score one FEATURES by rmd; got {got}. Leave it out.")
    if arguments.method == "training-dynamics":
        return score_run(arguments.features, label_column=arguments.label_column, **options)
    sources = [open_features(path, label_column=arguments.label_column) for path in arguments.features]
    if len(sources) == 1:
        with opened_engine(arguments) as engine:
            verbs = None if engine is None else engine.rmd(sources[0])
            shared = {"method": arguments.method, "verbs": verbs, "progress": progress}
            return score_source(sources[0], arguments.features[0], **shared, **options)
    from diffident.difficulties import score_combined

    if arguments.method == "zero-shot":
        raise InputError("`--method zero-shot` must have one FEATURES; got several. Score each, with its own text.")
    names = sources[0].label_names
    return score_combined(
        sources,
        combine=arguments.combine or "mean-rank",
        method=arguments.method,
        num_classes=None if names is None else len(names),
        progress=progress,
        **options,
    )


def score_source(
    source,
    where: str,
    *,
    method: str,
    verbs: Any = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
):
    """The `DifficultyTable` of a feature source; `verbs` and `progress` are those of `score_features`."""
    from diffident.difficulties import score_features

    if method == "training-dynamics":
        raise InputError(
            f"`--method training-dynamics` must be given the folder of a run; got the features of {where}. "
            "Run: diffident score RUN --method training-dynamics."
        )
    if source.labels is None:
        raise InputError(
            f"`FEATURES` must have labels to be scored; {where} has none. Choose some with --label-column."
        )
    if method == "zero-shot":
        options["label_features"] = _label_features(source, options.get("label_features"))
    return score_features(
        source.blocks,
        source.ids,
        source.labels,
        num_classes=None if source.label_names is None else len(source.label_names),
        method=method,
        encoder=source.encoder,
        label_names=source.label_names,
        verbs=verbs,
        progress=progress,
        **options,
    )


def score_run(paths: list[str], *, label_column: str | None = None, **options: Any):
    """The `DifficultyTable` of the training dynamics of a run."""
    from diffident.difficulties import score_features
    from diffident.storage.dynamics import read_dynamics
    from diffident.storage.runs import open_run

    if len(paths) > 1 or label_column is not None:
        what = f"{len(paths)} of them" if len(paths) > 1 else "--label-column"
        raise InputError(
            f"`RUN` must be one run with its own labels for training-dynamics; got {what}. Score one run at a time."
        )
    dynamics = read_dynamics(paths[0])
    is_run = (Path(paths[0]) / "config.toml").is_file()
    run = open_run(paths[0], unfinished=True) if is_run else None
    names = None if run is None else run.label_names
    seen = max(int(dynamics.labels.max()), int(dynamics.predictions.max())) + 1
    return score_features(
        lambda: iter(()),
        dynamics.ids,
        dynamics.labels,
        num_classes=seen if names is None else len(names),
        method="training-dynamics",
        encoder="unknown" if run is None else run.settings.model,
        label_names=names,
        dynamics=dynamics,
        **options,
    )


def _label_features(source, given: str | None):
    """Text features that were named, or lie with the features; else from the features' own encoder, kept with them."""
    from diffident.encoders.label_text import FAMILIES, encode_label_names
    from diffident.storage.label_features import (
        LABEL_FEATURES,
        are_of_other_names,
        read_label_features,
        write_label_features,
    )

    names = source.label_names or ()
    if given is not None and given.startswith(FAMILIES):
        return encode_label_names(given, names)
    if given is None and source.path.is_dir() and source.encoder.startswith(FAMILIES):
        there = (source.path / LABEL_FEATURES).exists()
        if not there or (names and are_of_other_names(source.path, names)):
            write_label_features(encode_label_names(source.encoder, names), source.path, names)
    return read_label_features(source.path if given is None else given)


def write(table, path: str) -> None:
    """Write `difficulty.parquet`."""
    from diffident.storage.difficulty_table import write_difficulty_table

    write_difficulty_table(table, path)


def describe(table) -> None:
    """Log what was fitted and what may make it unreliable."""
    metadata = table.metadata
    size = f"{metadata['num_samples']:,} samples, {metadata['num_classes']} classes"
    if "condition_number" in metadata:
        log(
            f"Fitted on {size}, {metadata['num_features']} features: rank {metadata['rank']}, condition number "
            f"{metadata['condition_number']:.3g}, shrinkage {metadata['shrinkage']:.4g} "
            f"({metadata['shrinkage_choice']})."
        )
    else:
        shown = {key: value for key, value in metadata.items() if key not in (*_PLAIN, *_NOTES)}
        settings = ", ".join(f"{key} {_short(value)}" for key, value in shown.items() if not isinstance(value, list))
        log(f"Scored {size} by {metadata['method']}: {settings or 'no settings'}.")
    for pair in metadata.get("agreement", []):
        one, other = pair["sources"]
        log(
            f"Features {one} and {other} ({', '.join(pair['encoders'])}): Spearman correlation of difficulty "
            f"{_short(pair['spearman'])}, Jaccard index of suspects {_short(pair['jaccard_suspects'])}."
        )
    if metadata.get("rank") == 0:
        log("Note: within the classes no feature varies beyond rounding: every difficulty is 0. Use other features.")
    for key, words in _NOTES.items():
        count = metadata.get(key, 0)
        if count:
            one, several, meaning = words
            log(f"Note: {count} {one if count == 1 else several} {meaning}.")


def _short(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
