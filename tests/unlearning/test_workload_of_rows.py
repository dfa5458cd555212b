"""What rows beyond one merge train is counted before a run."""

import pytest

from negmerge.experiment.config import check_config
from negmerge.experiment.workload import workload

ROWS = {"forget": 50, "retain": 400, "validation": 100}


def work(method):
    raw = {
        "name": "x",
        "model": {"family": "small-cnn"},
        "data": {"source": "digits", "forget": {"fraction": 0.1}},
        "base": {"train": {"epochs": 1}},
        "pool": {"train": {"batch_size": 32}, "grid": {"epochs": [2, 4]}},
        "methods": [method],
    }
    return workload(check_config(raw), 2, ROWS)


@pytest.mark.parametrize(
    ("method", "trained", "vectors"),
    [
        ("alpha-by-layer", 0, 1),
        ({"name": "learned-coefficients", "steps": 10, "batch_size": 80}, 10 * (50 + 80 + 80), 1),
        ("contrast", 50 * 6, 1),
        ("two-step", 75, 2),  # two members for a quarter of their epochs
        ({"name": "unlearning-pool", "epochs": 3, "repeats": 2}, 2 * 2 * 3 * 50, 1),
        ({"name": "unlearning-pool", "run_settings": {}, "grid": {"lr": [0.1]}, "repeats": 1}, 10 * 450, 1),
    ],
)
def test_training_beside_the_pool_is_counted(method, trained, vectors):
    found = work(method)
    assert (found.trained, found.vectors) == (trained, vectors)
