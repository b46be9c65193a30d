"""`diffident score`: features to difficulty."""

import argparse

from diffident.cli.common import log, print_json
from diffident.errors import InputError

EXAMPLE = "diffident score features/ --out difficulty.parquet"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "features", metavar="FEATURES", help="folder from `diffident extract`, or .npz with features, labels"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the table to write, for example difficulty.parquet"
    )
    parser.add_argument("--label-column", metavar="NAME", help="score against these labels instead of the stored ones")
    add_method_options(parser)


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options of the difficulty method."""
    parser.add_argument(
        "--method", default="rmd", help="difficulty method (default: rmd, relative Mahalanobis distance)"
    )
    parser.add_argument(
        "--shrinkage",
        default="auto",
        metavar="auto|0..1",
        help="towards a scaled identity (default: auto)",
    )


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
    from diffident.storage.features import open_features

    amount = parse_shrinkage(arguments.shrinkage)
    source = open_features(arguments.features, label_column=arguments.label_column)
    table = score_source(source, arguments.features, method=arguments.method, shrinkage=amount)
    write(table, arguments.out)
    num_suspects = int((table.margin > 0).sum())
    if arguments.json:
        print_json({"difficulty": arguments.out, "num_suspects": num_suspects, **table.metadata})
        return
    describe(table)
    log(f"{num_suspects:,} of {len(table):,} samples are nearer to another class than to their label's.")
    log(f"The difficulty of every sample is in {arguments.out}.")


def score_source(source, where: str, *, method: str, shrinkage: str | float):
    """The `DifficultyTable` of a feature source."""
    from diffident.difficulties import score_features

    if source.labels is None:
        raise InputError(
            f"`FEATURES` must have labels to be scored; {where} has none. Choose some with --label-column."
        )
    return score_features(
        source.blocks,
        source.ids,
        source.labels,
        num_classes=None if source.label_names is None else len(source.label_names),
        method=method,
        shrinkage=shrinkage,
        encoder=source.encoder,
        label_names=source.label_names,
    )


def write(table, path: str) -> None:
    """Write `difficulty.parquet`."""
    from diffident.storage.difficulty_table import write_difficulty_table

    write_difficulty_table(table, path)


def describe(table) -> None:
    """Log what the Gaussians were fitted on and what may make them unreliable."""
    metadata = table.metadata
    log(
        f"Fitted on {metadata['num_samples']:,} samples, {metadata['num_classes']} classes, "
        f"{metadata['num_features']} features: rank {metadata['rank']}, condition number "
        f"{metadata['condition_number']:.3g}, shrinkage {metadata['shrinkage']:.4g} ({metadata['shrinkage_choice']})."
    )
    notes = {
        "singleton_classes": "classes have one sample: their difficulty says little",
        "absent_classes": "classes have no sample and are never nearest",
        "constant_features": "features are constant and carry nothing",
    }
    for key, meaning in notes.items():
        count = metadata.get(key, 0)
        if count:
            log(f"Note: {count} {meaning}.")
