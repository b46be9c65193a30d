"""A fitted calibrator as JSON."""

import json
from pathlib import Path

from diffident.calibrators import Calibrator, calibrator_from_dict, calibrator_to_dict
from diffident.errors import InputError
from diffident.files import first_line
from diffident.storage.atomic import write_text

FORMAT_VERSION = 1


def write_calibrator(calibrator: Calibrator, path: str | Path) -> None:
    """Write the calibrator atomically; the same calibrator gives the same bytes."""
    values = {"format": "calibrator", "version": FORMAT_VERSION, **calibrator_to_dict(calibrator)}
    write_text(path, json.dumps(values, sort_keys=True, allow_nan=False) + "\n")


def read_calibrator(path: str | Path) -> Calibrator:
    """Read what `write_calibrator` wrote.

    Raises:
        InputError: no such file, no JSON, another format or version, or a damaged state.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InputError(f"`calibrator` must be readable JSON; {path}: {reason}. Fit it again.") from None
    known = {"format": "calibrator", "version": FORMAT_VERSION}
    if not isinstance(values, dict) or any(values.get(key) != value for key, value in known.items()):
        raise InputError(
            f"`calibrator` must be a file of diffident, version {FORMAT_VERSION}; {path} is not. Fit it again."
        )
    return calibrator_from_dict(values)
