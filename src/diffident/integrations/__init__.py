"""Audits in the formats of other tools: one file a tool, none of which has to be installed to write for it."""

from pathlib import Path

from diffident.data.dataset import Dataset
from diffident.errors import InputError, did_you_mean
from diffident.integrations.cleanlab import write_cleanlab
from diffident.integrations.fiftyone import require_images, to_fiftyone
from diffident.records import Suspects

FORMATS = ("cleanlab", "fiftyone")
CLEANLAB = "cleanlab.parquet"


def check_formats(formats: list[str], dataset: Dataset | None) -> None:
    """Raise `InputError` unless an audit of this data set can be written in all the formats."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"`--export` must be a known format; got `{name}`. {did_you_mean(name, FORMATS)}")
    if "fiftyone" in formats:
        require_images(dataset)


def write_formats(formats: list[str], suspects: Suspects, dataset: Dataset | None, folder: Path) -> list[str]:
    """Write the audit in every format; the names of what was written: `cleanlab.parquet`, `fiftyone/`."""
    written = []
    if "cleanlab" in formats:
        written.append(write_cleanlab(suspects, folder / CLEANLAB).name)
    if "fiftyone" in formats:
        written.append(f"{to_fiftyone(suspects, require_images(dataset), folder / 'fiftyone').name}/")
    return written
