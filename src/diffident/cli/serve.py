"""`diffident serve`: the report as a live page, for data sets that are too large for one file."""

import argparse
from dataclasses import replace
from threading import Thread

from diffident.cli.common import log, print_json
from diffident.cli.report import add_inputs, gather
from diffident.errors import InputError

EXAMPLE = "diffident serve audit/ runs/*"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_inputs(parser)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (default: any that is free)")
    parser.add_argument("--marks", metavar="FILE", help="where marks are kept (default: marks.jsonl in the audit)")


def run(arguments: argparse.Namespace) -> None:
    """Serve until interrupted."""
    server = open_server(arguments)
    if server.samples is not None:
        Thread(target=server.samples.prepare, daemon=True).start()
    if arguments.json:
        print_json({"address": server.address, "port": server.port})
    else:
        print(server.address, flush=True)
        log("Open the address above in a browser of this machine; Ctrl-C ends it.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        log("Ended; the marks are saved.")
    finally:
        server.server_close()


def open_server(arguments: argparse.Namespace):
    """The `PageServer` that the arguments ask for, bound to its port."""
    from diffident.report.inputs import sort_inputs
    from diffident.report.live import LiveSamples
    from diffident.report.marks import Marks
    from diffident.report.server import PageServer

    if not 0 <= arguments.port < 65_536:
        raise InputError(f"`--port` must be in [0, 65536); got {arguments.port}. Leave it out for any that is free.")
    report, audit = gather(arguments, live=True)
    samples = None
    if audit is not None:
        folder = sort_inputs(arguments.inputs).audit
        assert folder is not None  # it is what `audit` was read from
        marks = Marks(arguments.marks or folder / "marks.jsonl", audit.suspects.table.ids)
        samples = LiveSamples(audit, marks)
    for note in report.notes:
        log(note)
    try:
        return PageServer(replace(report, samples=None), samples, arguments.port)
    except OSError as error:
        raise InputError(f"`--port` must be free; {arguments.port}: {error.strerror}. Leave it out.") from None
