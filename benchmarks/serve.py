"""How long `diffident serve` takes with many samples: the audit, the start, each kind of request that the page makes.

    python benchmarks/serve.py [--samples 100000] [--features 16] [--classes 10] [--repeats 5] [--folder DIR]
        [--out serve.json]

Makes a Parquet table of Gaussian classes, one in twenty labels wrong; runs `diffident audit` and `diffident serve` on
it as processes of their own; and asks the server over HTTP what a browser would. An interaction is a selection with the
rows that are seen first: `first` is timed without a pause after the start, while the server still prepares, `again` is
the median of the others, each with other criteria. A mark ends when the file holds it. A folder that is named is kept,
and its audit used again. Memory is that of the process, read from /proc (Linux).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COMMAND = [sys.executable, "-m", "diffident"]
SEEN = 120  # rows that the page asks for at once
NOTHING = {"text": "", "either": None, "given": None, "nearest": None, "low": None, "high": None}
NOTHING |= {"suspects": False, "marked": False, "sort": "hardest"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where table and audit are kept (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = json.dumps(measure(arguments, arguments.folder or Path(temporary)), indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    table, audit = folder / "table.parquet", folder / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    if not table.exists():
        write_table(table, arguments.samples, arguments.features, arguments.classes)
    result: dict[str, Any] = {"samples": len(pq.ParquetFile(table).read(["label"]))}
    if not (audit / "audit.json").exists():
        result["audit"] = run_audit(table, audit)
    (audit / "marks.jsonl").unlink(missing_ok=True)
    started = time.perf_counter()
    with served(audit) as (process, page):
        result["serve"] = {"start, seconds": time.perf_counter() - started}
        result["serve"]["memory, bytes"] = memory_of(process.pid, "VmRSS")
        result["requests, seconds"] = time_requests(page, result["samples"], audit / "marks.jsonl", arguments)
        result["serve"]["memory at the end, bytes"] = memory_of(process.pid, "VmRSS")
        result["serve"]["memory at most, bytes"] = memory_of(process.pid, "VmHWM")
    return result


def write_table(path: Path, num_samples: int, num_features: int, num_classes: int) -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(num_classes, size=num_samples)
    means = 1.2 * generator.standard_normal((num_classes, num_features), dtype=np.float32)
    values = generator.standard_normal((num_samples, num_features), dtype=np.float32) + means[true]
    other = (true + generator.integers(1, num_classes, size=num_samples)) % num_classes
    labels = np.where(generator.random(num_samples) < 0.05, other, true)
    columns = {f"x{number}": values[:, number] for number in range(num_features)}
    pq.write_table(pa.table(columns | {"label": labels}), path)


def run_audit(table: Path, audit: Path) -> dict[str, float]:
    started = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, "audit", str(table), "--out", str(audit), "--json"], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("The audit failed.")
    return {
        "seconds": time.perf_counter() - started,
        "processor seconds": used.ru_utime + used.ru_stime,
        "memory at most, bytes": used.ru_maxrss * 1024,
    }


class Page:
    """Asks as the page does, over one connection that stays open."""

    def __init__(self, address: str):
        url = urlsplit(address)
        self.connection = HTTPConnection("127.0.0.1", url.port, timeout=600)
        self.headers = {"Cookie": f"diffident-{url.port}={parse_qs(url.query)['token'][0]}"}

    def get(self, path: str, **query: Any) -> bytes:
        self.connection.request("GET", f"{path}?{urlencode(query)}", headers=self.headers)
        return self._answer()

    def post(self, path: str, content: dict[str, Any]) -> Any:
        headers = {**self.headers, "Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(content), headers)
        return json.loads(self._answer())

    def _answer(self) -> bytes:
        response = self.connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise SystemExit(f"The server answered {response.status}: {content.decode()}")
        return content

    def select(self, **criteria: Any) -> dict[str, Any]:
        """A selection, and its first rows."""
        found = self.post("/select", NOTHING | criteria)
        if found["count"]:
            self.get("/rows", view=found["view"], start=0, end=min(SEEN, found["count"]))
        return found

    def scroll_to_end(self, found: dict[str, Any]) -> None:
        self.get("/rows", view=found["view"], start=max(0, found["count"] - SEEN), end=found["count"])


@contextmanager
def served(audit: Path) -> Iterator[tuple[subprocess.Popen, Page]]:
    """The server's process, and a page of it, from when it has said its address."""
    with subprocess.Popen([*COMMAND, "serve", str(audit), "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            while not lines or lines[-1] != "}\n":
                lines.append(process.stdout.readline())
                if not lines[-1]:
                    raise SystemExit("The server did not start.")
            yield process, Page(json.loads("".join(lines))["address"])
        finally:
            process.terminate()


def memory_of(process: int, field: str) -> int:
    """Bytes that /proc says of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")))


def time_requests(page: Page, count: int, marks: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    def mark(number: int) -> None:
        page.post("/marks", {"row": number, "marked": True})
        last = json.loads(marks.read_text(encoding="utf-8").splitlines()[-1])
        if not last["marked"] or int(last["id"].removeprefix("table:")) != number:
            raise SystemExit(f"The mark of row {number} is not in the file: {last}.")

    every = page.select()
    row = generator_of_rows(count)
    kinds: dict[str, Callable[[int], Any]] = {
        f"sort by {sort}": lambda number, sort=sort: page.select(sort=sort)
        for sort in ("id", "easiest", "wrong", "margin", "row")  # first those that the server may still be preparing
    }
    kinds |= {
        "page": lambda number: page.get("/"),
        "filter by class": lambda number: page.select(given=number % arguments.classes),
        "filter by difficulty": lambda number: page.select(low=float(number)),
        "filter the suspects of a class": lambda number: page.select(suspects=True, either=number % arguments.classes),
        "search of an id": lambda number: page.select(text=f"e:{number}"),
        "search of two words": lambda number: page.select(text=f"{number} table"),
        "scroll to the end": lambda number: page.scroll_to_end(every),
        "scroll elsewhere": lambda number: page.get("/rows", view=every["view"], start=(at := next(row)), end=at + 1),
        "a sample": lambda number: page.get("/sample", row=next(row)),
        "its neighbours": lambda number: page.get("/neighbours", row=next(row)),
        "mark, until the file holds it": mark,
        "filter the marked": lambda number: page.select(marked=True),
    }
    result = {}
    for name, ask in kinds.items():
        first, *others = (seconds_of(ask, number) for number in range(1 + arguments.repeats))
        result[name] = {"first": round(first, 4), "again": round(statistics.median(others), 4)}
        every = page.select()
    return result


def generator_of_rows(count: int) -> Iterator[int]:
    generator = np.random.default_rng(1)
    while True:
        yield int(generator.integers(count - 1))


def seconds_of(ask: Callable[[int], Any], number: int) -> float:
    started = time.perf_counter()
    ask(number)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
