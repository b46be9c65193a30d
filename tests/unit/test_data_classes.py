from dataclasses import replace

import numpy as np
import pytest

from diffident.data.classes import in_classes_of
from diffident.data.dataset import Dataset
from diffident.errors import InputError

NAMES = ("a", "b", "c")


def dataset(labels, names):
    ids = np.array([f"s{row}" for row in range(len(labels))], dtype=object)
    return Dataset("toy", "vector", ids, np.array(labels), np.zeros((len(labels), 1)).__getitem__, "f", names)


def test_classes_are_joined_by_name():
    found = in_classes_of(dataset([0, 1, 1], ("c", "a")), 3, NAMES, "the run")
    assert (found.labels.tolist(), found.label_names) == ([2, 0, 0], NAMES)
    unused = in_classes_of(dataset([1, 1], ("x", "b")), 3, NAMES, "the run")
    assert unused.labels.tolist() == [1, 1]


def test_the_same_classes_and_no_labels_are_left_alone():
    for given in (dataset([0, 2], NAMES), dataset([0, 2], None)):
        assert in_classes_of(given, 3, given.label_names, "the run") is given
    outside = replace(dataset([0], ("x",)), labels=None)
    assert in_classes_of(outside, 3, NAMES, "the run") is outside


@pytest.mark.parametrize(
    ("labels", "own", "names", "words"),
    [
        ([0, -1], NAMES, NAMES, r"must be in \[0, 3\), the classes of the run; got -1 at 's1' of toy"),
        ([0, 3], None, None, r"must be in \[0, 3\), the classes of the run; got 3 at 's1' of toy"),
        ([0, -1], ("b", "a"), NAMES, r"must be in \[0, 2\), the classes of toy itself; got -1 at 's1' of toy"),
        ([0, 2], ("b", "a"), NAMES, r"must be in \[0, 2\), the classes of toy itself; got 2 at 's1' of toy"),
        ([0, 1], ("a", "bb"), NAMES, r"got 'bb' at 's1'\. Did you mean `b`\? Choices: a, b, c\. Of data with"),
        ([0, 1], ("a", "crane"), ("a", "crane", "crane"), "the run has 'crane' twice, which 's1' of toy is"),
        ([0, 1], None, NAMES, "must be names of classes, as those of the run are; got numbers"),
        ([0, 1], NAMES, None, "must be numbers of classes, as those of the run are; got names"),
    ],
)
def test_what_cannot_be_joined_is_named(labels, own, names, words):
    with pytest.raises(InputError, match=words):
        in_classes_of(dataset(labels, own), 3, names, "the run")
