"""Weak encoders of texts, to compare stronger ones with: what words there are, and nothing of what they mean."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import HashingVectorizer


def _hashed(texts: Sequence[str], *, size: int) -> np.ndarray:
    """Counts of words [n, size], each added to one of `size` places by its hash; rows have length 1."""
    counts = HashingVectorizer(n_features=size).transform(texts)
    return csr_array(counts).toarray().astype(np.float32)


hashed_words_64 = partial(_hashed, size=64)
hashed_words_512 = partial(_hashed, size=512)
