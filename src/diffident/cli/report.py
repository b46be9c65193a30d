"""`diffident report`: one page of everything, and the figures and tables for papers."""

import argparse
from dataclasses import replace
from pathlib import Path

from diffident.cli.common import add_data_options, check_out, data_options, log, named_files, print_json, progress_bar
from diffident.errors import InputError

EXAMPLE = "diffident report audit/ runs/* --out report.html"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_inputs(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write, an .html file")
    parser.add_argument(
        "--figures", metavar="DIR", help="also write every plot as PNG, SVG and PDF, every table as .md and .tex"
    )
    parser.add_argument("--rows", type=int, default=50_000, metavar="N", help="samples listed at most (default: 50000)")
    parser.add_argument("--thumbnails", type=int, default=6_000, metavar="N", help="thumbnails at most (default: 6000)")
    parser.add_argument("--megabytes", type=float, default=15.0, metavar="N", help="size to keep to (default: 15)")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Options that say what is reported on; `serve` takes the same."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="RUN|EVALUATION|AUDIT",
        help="a run, evaluation.json, predictions (.parquet, .npz), an audit's folder; files also as NAME=FILE",
    )
    parser.add_argument("--data", metavar="DATA", help="samples to show (default: what the audit was made from)")
    parser.add_argument("--features", metavar="FEATURES", help="for neighbours (default: what the audit was made from)")
    parser.add_argument(
        "--ood", nargs="+", action="extend", default=[], metavar="NAME=FILE", help="out-of-distribution predictions"
    )
    parser.add_argument(
        "--corrupted",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="predictions or evaluation of corrupted data, as fog-3=fog3.parquet; or a method's robustness, as JSON",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the only method to compare with (default: difficulty-aware with each of the others)",
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page")
    parser.add_argument("--resamples", type=int, default=500, metavar="N", help="bootstrap resamples (default: 500)")
    add_data_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Gather, write the page, and the figures where asked."""
    from diffident.report.page import write_page

    out = Path(arguments.out)
    if out.is_dir():
        raise InputError(f"`--out` must be a file; got the folder {out}. For example: --out {out / 'report.html'}.")
    named = (*arguments.inputs, *arguments.ood, *arguments.corrupted)
    check_out(arguments.out, *named, arguments.data, arguments.features, suffix=".html")
    if arguments.figures:
        _make_figures_folder(Path(arguments.figures), out)
    report, _ = gather(arguments)
    size = write_page(report, out)
    files = []
    if arguments.figures:
        from diffident.report.figures import write_figures

        files = write_figures(report, Path(arguments.figures))
    if arguments.json:
        print_json({"out": str(out), "bytes": size, "figures": files, "notes": list(report.notes)})
        return
    for note in report.notes:
        log(note)
    if files:
        log(f"Figures and tables in {arguments.figures}: {len(files)} files.")
    log(f"The report is in {out} ({size / 1e6:.1f} MB): open it in a browser.")


def _make_figures_folder(folder: Path, out: Path) -> None:
    """Make it before the work, so that nothing is half done where it cannot be."""
    from diffident.storage.atomic import make_folder

    if folder.is_file() or folder.resolve() == out.resolve():
        raise InputError(f"`--figures` must be a folder; got the file {folder}. Name another.")
    make_folder(folder)


def gather(arguments: argparse.Namespace, *, live: bool = False):
    """The `Report` that the arguments ask for, without its samples where they are served live; and the audit."""
    from diffident.cli.compare import names_of_runs
    from diffident.cli.verdict import verdict_of
    from diffident.report import building, inputs
    from diffident.report.evaluation_charts import corruption_charts, evaluation_charts
    from diffident.storage.predictions import read_predictions

    if arguments.resamples < 1:
        raise InputError(f"`--resamples` must be at least 1; got {arguments.resamples}. Intervals and tests need some.")
    sources = inputs.sort_inputs(arguments.inputs)
    _check_used(arguments, sources)
    limits = building.Limits(
        **{
            key: value
            for key in ("rows", "thumbnails", "megabytes")
            if (value := getattr(arguments, key, None)) is not None
        }
    )
    outside = {name: read_predictions(file) for name, file in named_files(arguments.ood, "--ood").items()}
    corrupted = named_files(arguments.corrupted, "--corrupted")
    audit, notes = None, inputs.unfinished_notes(sources.runs)
    if sources.audit is not None:
        audit, more = inputs.read_audit(
            sources.audit, data=arguments.data, features=arguments.features, options=data_options(arguments)
        )
        notes += more
    names = names_of_runs(list(sources.runs))
    with progress_bar("evaluate") as progress:
        evaluations = inputs.read_evaluations(sources, names, outside, arguments.resamples, progress)
    predictions = inputs.read_predicted(sources, names)
    with progress_bar("compare") as progress:
        sentences, tables = verdict_of(evaluations, predictions, arguments.baseline, arguments.resamples, progress)
    logs, learnt = inputs.read_logs(sources.runs, names), inputs.learnt_facts(sources.runs, names)
    charts = evaluation_charts(evaluations)
    charts += corruption_charts(inputs.read_corrupted(corrupted))
    with progress_bar("thumbnails") as progress:
        report = building.build_report(
            title=arguments.title or _title(sources),
            audit=audit,
            methods=inputs.read_methods(sources, names, outside),
            logs=logs,
            sentences=sentences,
            tables=tables,
            charts=charts,
            facts=[("runs", str(len(sources.runs))), *learnt] if sources.runs else [],
            limits=None if live else limits,
            progress=progress,
        )
    return replace(report, notes=(*notes, *report.notes)), audit


def write_default_page(inputs: list[str], out: Path, *, title: str | None = None):
    """What `diffident report` makes of the inputs by its defaults, for commands that end with a page; the `Report`."""
    from diffident.cli import build_parser
    from diffident.report.page import write_page

    given = ["report", *inputs, "--out", str(out), *([] if title is None else ["--title", title])]
    report, _ = gather(build_parser("report").parse_args(given))
    write_page(report, out)
    return report


def _check_used(arguments: argparse.Namespace, sources) -> None:
    """Refuse options that nothing among the inputs needs."""
    of_audits = ("data", "features", *data_options(arguments))
    unused = [name for name in of_audits if sources.audit is None and getattr(arguments, name, None) is not None]
    if unused:
        flag = f"--{unused[0].replace('_', '-')}"
        raise InputError(f"`{flag}` must be used with an audit; got none among the inputs. Name one, or leave it out.")
    if arguments.ood and not sources.predictions:
        raise InputError(
            "`--ood` must be used with files of predictions; got none among the inputs. Runs have theirs beside "
            "predictions/test.parquet; evaluate takes --ood, too."
        )


def _title(sources) -> str:
    if sources.audit is not None:
        return f"diffident: {sources.audit.resolve().name}"
    folders = {run.path.resolve().parent.name for run in sources.runs}
    return f"diffident: {folders.pop()}" if len(folders) == 1 else "diffident report"
