"""Connecting to Ray, and what its errors become."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffident.errors import DiffidentError, InputError, MissingDependencyError, UnavailableError, WorkerError
from diffident.files import first_line

_SECONDS = 10.0


@contextmanager
def errors_on_one_line(ray: Any) -> Iterator[None]:
    """Raise our own errors from workers as they were, and Ray's as `WorkerError`."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause: Any = error
        while isinstance(cause, ray.exceptions.RayTaskError):
            cause = cause.cause
        if isinstance(cause, DiffidentError):
            raise cause from None
        what = f"{type(cause).__name__}: {first_line(cause)}"
        raise WorkerError(
            f"a worker failed: {what}. What was finished is kept. Mend it, and run the same again."
        ) from error


@contextmanager
def connection(address: str | None) -> Iterator[Any]:
    """Ray, connected; stopped in the end if it was not connected before."""
    # Ray reports its use to its makers unless told otherwise before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependencyError(
            "`--engine ray` must have the library Ray. Install it: pip install 'diffident[ray]'."
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _check_there(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises bare ones, too
        if address == "local":
            raise UnavailableError(
                f"`--engine ray` must start Ray on this machine; it did not: {first_line(error)}. Free some memory and "
                "processors and try again, or leave the option out."
            ) from None
        raise InputError(
            f"`--ray-address` must be that of a running cluster; got {address}: {first_line(error)}. "
            "Start one: ray start --head. Or leave it out for one on this machine."
        ) from None
    try:
        with _quiet(ray):
            yield ray
    finally:
        ray.shutdown()


def _check_there(address: str) -> None:
    """Raise OSError where nothing answers: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Leave out Ray Data's own progress bars and log lines: we show progress by samples."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
