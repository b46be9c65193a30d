"""`diffident audit`: the hardest samples, and the suspects among the labels."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from diffident.cli.common import add_data_options, data_options, log, print_json, print_table, progress_bar
from diffident.cli.extract import add_encoder_options, encoder_from, reading_options, refuse_encoder_options
from diffident.cli.report import write_default_page
from diffident.cli.score import add_method_options, describe, method_options, score_source, write
from diffident.errors import InputError

EXAMPLE = "diffident audit photos/ --encoder timm:vit_small_patch16_224 --out audit/"
_PAGE = "audit.html"
_NO_SAMPLES = "Features alone show no samples: name their data set with --data DATA."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("data", metavar="DATA|FEATURES", help="a data set, or features from `diffident extract`")
    parser.add_argument("--encoder", metavar="ENC", help="needed for DATA of images or text")
    parser.add_argument(
        "--data", dest="samples", metavar="DATA", help="with FEATURES: the data set to show samples from"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the tables, pictures and the page")
    parser.add_argument(
        "--top", type=int, default=100, metavar="N", help="samples on each contact sheet (default: 100)"
    )
    parser.add_argument(
        "--export", nargs="+", default=[], metavar="FORMAT", help="write also for cleanlab, fiftyone (images)"
    )
    add_encoder_options(parser)
    add_method_options(parser)
    add_data_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score, write the tables, draw the sheets and make the page."""
    from diffident.auditing import KeptPosterior, audit, write_audit_summary
    from diffident.integrations import CLEANLAB, write_formats
    from diffident.storage.atomic import make_folder

    if arguments.top < 1:
        raise InputError(f"`--top` must be at least 1; got {arguments.top}. Leave it out for 100.")
    options = method_options(arguments)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"`--out` must be a folder; got {out}, which is a file. Name a new one.")
    source, dataset = _open(arguments, out)
    kept = KeptPosterior() if arguments.method == "posterior" else None
    with progress_bar("score") as progress:
        table = score_source(source, arguments.data, method=arguments.method, verbs=kept, progress=progress, **options)
    make_folder(out)
    write(table, str(out / "difficulty.parquet"))
    with progress_bar("audit") as progress:
        suspects = audit(table, source.blocks, None if kept is None else kept.state, progress=progress)
    files = write_audit(suspects, dataset, out, arguments.top)
    write_audit_summary(suspects, _origin(arguments, source, dataset), out)
    page = write_default_page([str(out)], out / _PAGE)
    files += [_PAGE, *write_formats(arguments.export, suspects, dataset, out)]
    if "cleanlab" not in arguments.export:  # of an earlier audit
        (out / CLEANLAB).unlink(missing_ok=True)
    num_suspects = int((table.margin > 0).sum())
    wrong = {key: round(share * len(table)) for key, share in vars(suspects.wrong_share).items()}
    if arguments.json:
        summary = {"out": str(out), "num_suspects": num_suspects, "estimated_wrong": wrong, "files": files}
        print_json({**table.metadata, **summary})
        return
    describe(table)
    _print_hardest(table, suspects)
    log(f"{num_suspects:,} of {len(table):,} samples are suspects: another class is nearer than their own.")
    log(
        f"About {wrong['value']:,} labels are wrong, at least {wrong['low']:,} and at most {wrong['high']:,}; "
        "the most probable come first."
    )
    if wrong["value"] > num_suspects:
        log(
            "Note: more labels seem wrong than there are suspects. Sort hardest.csv by probability_wrong, or audit "
            "with --method posterior, which is not drawn to wrong labels."
        )
    if 3 * max(num_suspects, wrong["value"]) > len(table):
        log(
            "Note: that is more than a third. Either many labels are wrong, or these features tell the classes apart "
            "badly: then another encoder finds more of the wrong labels and fewer others."
        )
    log(f"In {out}: {', '.join(files)}.")
    log(f"The page is {out / _PAGE}: open it in a browser.")
    for note in page.notes if dataset is not None else [_NO_SAMPLES]:
        log(note)


def _open(arguments: argparse.Namespace, out: Path) -> tuple[Any, Any]:
    """The feature source, and the data set where samples can be shown."""
    from diffident.data import open_dataset
    from diffident.extraction import extract
    from diffident.integrations import check_formats
    from diffident.records import positions_of
    from diffident.storage.features import is_features, open_features

    if is_features(arguments.data):
        refuse_encoder_options(arguments)
        options = {**data_options(arguments), "label_column": None}
        unused = next((name for name, value in options.items() if value is not None), None)
        if unused is not None and not arguments.samples:
            flag = f"--{unused.replace('_', '-')}"
            raise InputError(f"`{flag}` must be used with DATA or --data; got features alone. Leave it out.")
        source = open_features(arguments.data, label_column=arguments.label_column)
        _check_same_samples(source.ids, out)
        dataset = open_dataset(arguments.samples, **options) if arguments.samples else None
        if dataset is not None:
            positions_of(dataset.ids, source.ids, what="the features", where=f"the data set {dataset.name}")
        check_formats(arguments.export, dataset)
        return source, dataset
    if arguments.samples:
        raise InputError(f"`--data` must be used with FEATURES; got the data {arguments.data}. Leave it out.")
    dataset = open_dataset(arguments.data, **data_options(arguments))
    _check_same_samples(dataset.ids, out, skipped=True)
    check_formats(arguments.export, dataset)
    if arguments.encoder is None and dataset.modality != "vector":
        raise InputError(
            f"`--encoder` must be given for {dataset.modality} data; {arguments.data} is no features folder. "
            "For example: --encoder timm:vit_small_patch16_224 or --encoder sentence-transformers:all-MiniLM-L6-v2."
        )
    encoder = encoder_from(arguments, arguments.encoder or "identity")
    with progress_bar("extract") as progress:
        source = extract(dataset, encoder, out=out / "features", progress=progress, **reading_options(arguments))
    _check_same_samples(source.ids, out)
    return source, dataset


def _check_same_samples(ids: np.ndarray, out: Path, *, skipped: bool = False) -> None:
    """Refuse a folder that holds the audit of other samples: its pictures and marks would stay beside these.

    Before samples are read, some of the `ids` may be of such as were `skipped` then.
    """
    from diffident.storage.difficulty_table import read_difficulty_table

    file = out / "difficulty.parquet"
    if not file.exists():
        return
    before = read_difficulty_table(file).ids
    if set(before) - set(ids) or (not skipped and len(before) != len(ids)):
        raise InputError(
            f"`--out` must be new, or hold an audit of the same samples; {out} holds one of {len(before):,} others. "
            "Name a new folder."
        )


def _origin(arguments: argparse.Namespace, source, dataset):
    """Where the report will find the samples and their features again."""
    from diffident.auditing import AuditSource

    options = data_options(arguments)
    if dataset is not None and arguments.samples:
        options["label_column"] = None
    columns = {name: value for name, value in options.items() if value is not None}
    data = None if dataset is None else absolute_data(arguments.samples or arguments.data)
    return AuditSource(data, columns, str(Path(source.path).resolve()))


def absolute_data(spec: str) -> str:
    """DATA with its path, if it is one, made absolute."""
    folder, _, split = spec.rpartition(":")
    if spec.partition(":")[0] in ("hf", "torchvision", "digits"):
        return spec
    if not Path(spec).exists() and folder and Path(folder).is_dir():
        return f"{Path(folder).resolve()}:{split}"
    return str(Path(spec).resolve())


def write_audit(suspects, dataset, out: Path, top: int) -> list[str]:
    """Write suspects and hardest samples as tables and, for images, as contact sheets; the names of the files."""
    from diffident.auditing import audit_table, suspect_rows, write_audit_table
    from diffident.records import positions_of

    files = []
    choices = {"suspects": suspect_rows(suspects), "hardest": suspects.order[:top]}
    for stem, rows in choices.items():
        positions = np.zeros(0, dtype=np.int64)
        if dataset is not None:
            where = f"the data set {dataset.name}"
            positions = positions_of(dataset.ids, suspects.table.ids[rows], what="the features", where=where)
        texts = None
        if dataset is not None and dataset.modality == "text":
            texts = [dataset[position] for position in positions]
        write_audit_table(audit_table(suspects, rows, texts), out, stem)
        files += [f"{stem}.parquet", f"{stem}.csv"]
        if dataset is not None and dataset.modality == "image":
            _save_sheet(suspects, dataset, rows[:top], positions[:top], stem, out)
            files.append(f"{stem}.png")
        else:  # of an earlier audit, and of other samples than the tables
            (out / f"{stem}.png").unlink(missing_ok=True)
    return files


def _save_sheet(suspects, dataset, rows, positions, stem: str, out: Path) -> None:
    from diffident.auditing import name_of
    from diffident.report.contact_sheet import Cell, draw_contact_sheet, save_contact_sheet

    table = suspects.table
    cells = [
        Cell(
            image=dataset[position],
            given=name_of(int(table.labels[row]), table.label_names),
            nearest=name_of(int(table.nearest_labels[row]), table.label_names),
            suspect=bool(suspects.suspect[row]),
        )
        for row, position in zip(rows, positions, strict=True)
    ]
    order = "hardest" if stem == "hardest" or suspects.probability_wrong is None else "most probable"
    titles = {"suspects": "Suspects", "hardest": "Hardest"}
    title = f"{titles[stem]}: {dataset.name}, {order} first; given label, then → the nearest class"
    save_contact_sheet(draw_contact_sheet(cells, title=title), out / f"{stem}.png")


def _print_hardest(table, suspects, count: int = 10) -> None:
    from diffident.auditing import name_of

    rows = [
        [
            str(table.ids[row]),
            name_of(int(table.labels[row]), table.label_names),
            name_of(int(table.nearest_labels[row]), table.label_names),
            f"{table.difficulty[row]:.1f}",
            f"{table.margin[row]:.1f}",
        ]
        for row in suspects.order[:count]
    ]
    print_table("The hardest samples", ["id", "given", "nearest", "difficulty", "margin"], rows)
