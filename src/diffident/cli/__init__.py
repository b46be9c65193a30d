"""The command line: one file per command, each with `add` (its options and help) and `run`."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import diffident
from diffident.errors import DataWarning, DiffidentError, InputError, MissingDependencyError, did_you_mean

COMMANDS = {
    "quickstart": "the whole way, end to end, on data that comes with it",
    "extract": "features of a data set with a pre-trained encoder",
    "score": "difficulty of every sample from its features",
    "audit": "the hardest samples and the probably wrong labels, as tables, pictures and a page",
    "train": "train a classifier, with or without difficulty",
    "predict": "logits of a trained classifier for a data set",
    "evaluate": "accuracy, calibration, selective classification and out-of-distribution detection, with intervals",
    "report": "one self-contained page of runs, evaluations and audits, and figures and tables for papers",
    "serve": "the report as a live page on this machine, for data sets that are too large for one file",
    "compare": "runs side by side: mean and standard deviation over seeds",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}. See `{self.prog} --help`.\n")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole program; only the named command's options are loaded, so that help is quick."""
    overview = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
    parser = _Parser(
        prog="diffident",
        description=(diffident.__doc__ or "").split("\n")[0],
        epilog=f"commands:\n{overview}\n\n`diffident COMMAND --help` shows a command's options and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"diffident {diffident.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS if command is None else [command]:
        module = importlib.import_module(f"diffident.cli.{name}")
        subparser = subparsers.add_parser(
            name,
            description=COMMANDS[name].capitalize() + ".",
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add(subparser)
        subparser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        subparser.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 wrong input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        if command is not None and command not in COMMANDS:
            raise InputError(
                f"`COMMAND` must be one of diffident's; got `{command}`. {did_you_mean(command, COMMANDS)}"
            )
        parser = build_parser(command)
        parsed = parser.parse_args(arguments)
        if parsed.command is None:
            parser.print_help()
            return 2
        with _data_warnings_on_one_line():
            parsed.run(parsed)
    except (InputError, MissingDependencyError) as error:
        return _fail(error, 2)
    except (DiffidentError, OSError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("diffident: interrupted; finished work is kept.", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _data_warnings_on_one_line() -> Iterator[None]:
    """Show what was left out of the data, always and without the place in our source."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def one_line(message, category, *place, **options):
            if issubclass(category, DataWarning):
                print(f"diffident: note: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                show(message, category, *place, **options)

        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = one_line
        yield


def _fail(error: Exception, code: int) -> int:
    print(f"diffident: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
