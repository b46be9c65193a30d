"""What several commands share: data options, progress, output."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from diffident.errors import InputError
from diffident.records import Estimate

# Of folders that are read, the tables that a command could be told to write over.
_PARTS = ("index.parquet", "dynamics.parquet", "predictions/*.parquet")


def add_data_options(parser: argparse.ArgumentParser, *, label_column: bool = True) -> None:
    """Options that say which columns of a table hold what."""
    if label_column:
        parser.add_argument(
            "--label-column", metavar="NAME", help="column with the labels (default: label and the like)"
        )
    parser.add_argument("--text-column", metavar="NAME", help="column with the text (default: text and the like)")
    parser.add_argument(
        "--image-column", metavar="NAME", help="column with images or their paths (default: image, ...)"
    )
    parser.add_argument(
        "--id-column", metavar="NAME", help="column with stable ids (default: id, else file name and row)"
    )


def data_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The data options as `open_dataset` takes them."""
    names = ("label_column", "text_column", "image_column", "id_column")
    return {name: getattr(arguments, name, None) for name in names}


def named_files(texts: list[str], option: str, *, taken: Sequence[str] = ()) -> dict[str, str]:
    """File by name, of an option that takes NAME=FILE several times.

    Raises:
        InputError: no name or file, a name that is given twice, or one that means something else already.
    """
    named: dict[str, str] = {}
    for text in texts:
        name, separator, file = text.partition("=")
        if not (separator and name and file) or name in (*named, *taken):
            but = f", not {', '.join(taken)}" if name in taken else ""
            again = " and the name before" if name in named else ""
            raise InputError(
                f"`{option}` must be NAME=FILE with a name of its own{but}; got `{text}`{again}. Give each a name."
            )
        named[name] = file
    return named


def check_out(out: str | None, *inputs: str | None, suffix: str) -> None:
    """Refuse to write a file over a folder or over one of the inputs, or with the ending of another format.

    Args:
        out: The file to write, or None.
        inputs: Files or folders that are read, maybe as NAME=FILE, or None.
        suffix: Ending of the format that is written; none at all is welcome too, and .htm for .html. What does not
            begin with a letter, such as the number of a version, is no ending.

    Raises:
        InputError: `out` is a folder, the same file as an input or a part of one, or has another ending.
    """
    if out is None:
        return
    path = Path(out)
    if path.is_dir():
        raise InputError(f"`--out` must be a file; got the folder {out}. Name a file in it.")
    for given in inputs:
        files = [] if given is None else [Path(given), Path(given.partition("=")[2])]
        parts = [part for file in files if file.is_dir() for name in _PARTS for part in file.glob(name)]
        if path.exists() and any(file.is_file() and file.samefile(path) for file in [*files, *parts]):
            raise InputError(
                f"`--out` must not be an input, which would be lost; got {out} for both. Name another file."
            )
    ending = path.suffix.lower()
    if ending[1:2].isalpha() and ending != suffix and (ending, suffix) != (".htm", ".html"):
        raise InputError(
            f"`--out` must end in {suffix}, as that is what is written; got {out}. "
            f"For example: {path.with_suffix(suffix)}."
        )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the work is done."""
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="where: local (default) or ray")
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a running cluster, or auto for the one of this machine (default: RAY_ADDRESS, else start one here)",
    )


@contextmanager
def opened_engine(arguments: argparse.Namespace, **options: Any) -> Iterator[Any]:
    """Yield None for the local engine, else the chosen one, connected; `options` are those of `RayEngine`."""
    if arguments.engine == "local":
        given = {"--ray-address": arguments.ray_address, "--concurrency": options.get("concurrency")}
        for flag, value in given.items():
            if value is not None:
                raise InputError(f"`{flag}` must be used with --engine ray; got --engine local. Leave it out.")
        yield None
        return
    from diffident.engines.ray import RayEngine

    # Ray prints what befalls its workers on standard output, which is for the result.
    with redirect_stdout(sys.stderr), RayEngine(arguments.ray_address, **options) as engine:
        yield engine


def log(message: str) -> None:
    """A line for people, on standard error."""
    print(message, file=sys.stderr)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:,.0f}/s")


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar with rate and time left on standard error.

    Where `done` falls, another pass over the samples begins: the bar starts anew and says which pass it is.
    """
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(label, total=None)
        task, passes = bar.tasks[0], 1

        def show(done: int, total: int) -> None:
            nonlocal passes
            if done < task.completed:
                passes += 1
                task.description = f"{label}, pass {passes}"
                task.finished_time = None  # a reset would forget the rate, which short passes have no time to tell
            bar.update(task.id, completed=done, total=total)

        yield show


class TrainingBar:
    """Draws the progress of a training run on standard error, in whichever process it is first called.

    It holds no more than its bar, so that it can be sent to the process that trains.
    """

    def __init__(self):
        self._bar: Progress | None = None

    def __call__(self, progress: Any) -> None:
        """Show where a run is; `progress` is a `diffident.training.Progress`."""
        if self._bar is None:
            console = Console(stderr=True)
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
            self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
            self._bar.start()
            self._bar.add_task("train")
        done = (progress.epoch - 1) * progress.steps + progress.step
        text = (
            f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.4f}  "
            f"rate {progress.learning_rate:.1e}  {progress.samples_per_second:,.0f} samples/s"
        )
        total = progress.epochs * progress.steps
        self._bar.update(TaskID(0), completed=done, total=total, description=text, refresh=True)
        if progress.restarts:
            self._bar.console.print(
                f"The model learns the labels by heart: it begins anew after epoch {progress.epoch} of "
                f"{progress.epochs}, on mixtures of samples; --set restart=false goes on instead.",
                soft_wrap=True,
            )
        if progress.finished:
            self.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def print_json(value: Any) -> None:
    """JSON on standard output, at once, as `serve` goes on; what is undefined is null."""
    # The end of the line goes with it: a reader of these lines alone has gone by the time of a second write.
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n", end="", flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def interval_cell(estimate: Estimate) -> str:
    """A metric as a table shows it: the value, in brackets its interval if it has one."""
    value = number_cell(estimate.value)
    if not estimate.has_interval or math.isinf(estimate.value):
        return value
    return f"{value} ({number_cell(estimate.low)}, {number_cell(estimate.high)})"


def number_cell(value: float) -> str:
    """A number as tables show it: a dash where undefined, no sign of a 0, a word for a threshold nothing reaches."""
    if math.isnan(value):
        return "–"
    return "none" if math.isinf(value) else f"{value:z.4f}"


def amount(number: int, what: str) -> str:
    """How many of something, in the singular of one."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; the first column is left-aligned, the others right."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)
