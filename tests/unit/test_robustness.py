from dataclasses import replace

import numpy as np
import pytest
import torch

from diffident.data import open_dataset
from diffident.errors import IdMismatchError, InputError
from diffident.records import Predictions
from diffident.robustness import CorruptionMetrics, Robustness, robustness, robustness_to_dict

DIGITS = open_dataset("digits:test", limit=40)


def nearest_mean(dataset):
    """Predictions by the nearest mean of the clean digits."""
    clean = np.stack([np.asarray(DIGITS[row], float).ravel() for row in range(40)])
    means = np.stack([clean[DIGITS.labels == k].mean(axis=0) for k in range(10)])
    pixels = np.stack([np.asarray(dataset[row], float).ravel() for row in range(len(dataset))])
    distances = np.linalg.norm(pixels[:, None] - means, axis=2)
    return Predictions(dataset.ids, torch.from_numpy(-distances / 50))


def test_metrics_by_kind_and_severity():
    calls = []
    kinds = ("gaussian-noise", "contrast")
    result = robustness(nearest_mean, DIGITS, kinds=kinds, severities=(1, 5), progress=lambda *done: calls.append(done))
    assert list(result.corrupted) == list(kinds)
    assert list(result.corrupted["contrast"]) == [1, 5]
    assert result.clean.accuracy > 0.9
    assert result.corrupted["contrast"][5].accuracy < result.corrupted["contrast"][1].accuracy <= result.clean.accuracy
    errors = [[1 - result.corrupted[kind][severity].accuracy for severity in (1, 5)] for kind in kinds]
    assert result.mean_corruption_error == pytest.approx(np.mean(errors))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert robustness(nearest_mean, DIGITS, kinds=kinds, severities=(1, 5)) == result
    values = robustness_to_dict(result)
    assert values["corrupted"]["contrast"]["5"] == vars(result.corrupted["contrast"][5])
    assert values["mean_ece"] == result.mean_ece
    assert values["num_samples"] == 40


def test_labels_are_those_of_the_predictions_which_have_the_models_classes():
    def named(dataset):
        return replace(nearest_mean(dataset), labels=torch.from_numpy(DIGITS.labels))

    options = {"kinds": ["fog"], "severities": [3]}
    turned = replace(DIGITS, labels=9 - DIGITS.labels)
    assert robustness(named, turned, **options) == robustness(nearest_mean, DIGITS, **options)


def test_predictions_are_joined_by_id():
    def shuffled(dataset):
        predictions = nearest_mean(dataset)
        order = np.random.default_rng(0).permutation(len(dataset))
        return Predictions(predictions.ids[order], predictions.logits[order])

    options = {"kinds": ["fog"], "severities": [3]}
    assert robustness(shuffled, DIGITS, **options) == robustness(nearest_mean, DIGITS, **options)
    with pytest.raises(IdMismatchError, match="ids of digits:test are not in the predictions"):
        robustness(lambda dataset: nearest_mean(dataset.select(np.arange(10))), DIGITS, **options)


def made(**errors):
    table = {kind: {s: CorruptionMetrics(1 - e, 0.1 * s) for s, e in enumerate(row, 1)} for kind, row in errors.items()}
    return Robustness(CorruptionMetrics(0.9, 0.01), table, 100, 0)


def test_mean_errors_by_hand():
    one = made(fog=[0.1, 0.3], snow=[0.2, 0.6])
    assert one.mean_corruption_error == pytest.approx(0.3)
    assert one.mean_ece == pytest.approx(0.15)
    # A half of the baseline's errors on fog, twice them on snow.
    assert one.relative_corruption_error(made(fog=[0.4, 0.4], snow=[0.1, 0.3])) == pytest.approx(1.25)
    assert one.relative_corruption_error(one) == pytest.approx(1)


def test_other_baselines_are_refused():
    one = made(fog=[0.1, 0.3])
    with pytest.raises(InputError, match="`baseline` must have the same kinds and severities"):
        one.relative_corruption_error(made(fog=[0.1]))
    with pytest.raises(InputError, match="`baseline` must make errors on every kind; got none on 'fog'"):
        one.relative_corruption_error(made(fog=[0.0, 0.0]))


def test_wrong_data_and_choices_are_refused():
    with pytest.raises(InputError, match=r"`data` must have labels to be evaluated; got none at digits:test"):
        robustness(nearest_mean, replace(DIGITS, labels=None))
    with pytest.raises(InputError, match=r"`kinds` and `severities` must name at least one"):
        robustness(nearest_mean, DIGITS, kinds=[])
    with pytest.raises(InputError, match=r"must be images or texts to be corrupted; got vector data"):
        robustness(nearest_mean, replace(DIGITS, modality="vector"))
    with pytest.raises(InputError, match="Did you mean `fog`"):
        robustness(nearest_mean, DIGITS, kinds=["fogg"])
