"""What the tests of extraction share."""

from dataclasses import replace

import numpy as np

from diffident.encoders.callables import CallableEncoder
from diffident.errors import UnreadableSampleError


def halves(batch):
    """Pixels over 2."""
    return np.stack([np.asarray(sample, dtype=np.float32).reshape(-1) / 2 for sample in batch])


def thirds(batch):
    """Pixels over 3."""
    return np.stack([np.asarray(sample, dtype=np.float32).reshape(-1) / 3 for sample in batch])


def encode_as(function):
    """An encoder whose fingerprint does not depend on the function."""
    return CallableEncoder(function, name="test", fingerprint="test")


def contents(folder):
    """Name and bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unreadable(dataset, positions):
    """The data set, of which the samples at these positions cannot be read."""

    def read(position):
        if position in positions:
            raise UnreadableSampleError(f"sample `{dataset.ids[position]}` must be a readable image; it is torn.")
        return dataset.read(position)

    return replace(dataset, read=read)


def widening(batch):
    """Ones, and one column more for batches below 8 samples."""
    return np.ones((len(batch), 2 + (len(batch) < 8)))
