"""Retraining, SISA and the pool compared: what SISA repeats, against its own dealing of rows."""

import pytest
import torch

from negmerge.experiment.alternatives import _sisa, advice
from negmerge.experiment.config import check_config
from negmerge.unlearning.methods.sisa import deal

CONFIG = {
    "name": "ways",
    "model": {"family": "small-cnn"},
    "data": {"source": "digits", "forget": {"fraction": 0.01}},
    "base": {"train": {"epochs": 8}},
    "pool": {"grid": {"lr": [1e-3]}},
}


@pytest.mark.parametrize("gone", [1, 3, 12])
def test_the_rows_that_sisa_repeats_are_those_of_its_own_slices_on_average(gone):
    config = check_config({**CONFIG, "methods": [{"name": "sisa", "shards": 4, "slices": 3}]})
    rows, found = 600, []
    for seed in range(300):
        slices_of = deal(torch.arange(rows), 4, 3, seed)
        repeated = 0
        for slices in slices_of:
            touched = next((r for r, part in enumerate(slices) if (part < gone).any()), 3)
            repeated += sum(4 * sum(len(part) for part in slices[: r + 1]) for r in range(touched, 3))
        found.append(repeated)
    once, again = _sisa(config, 8, rows - gone, gone)
    assert once == 4 * rows * (1 + 2 + 3) / 3
    assert again == pytest.approx(sum(found) / len(found), rel=0.05)


def test_advice_in_a_sentence():
    pool = {"name": "pool", "minutes": 4.0}
    retrain = {"name": "retrain", "minutes": 12.0, "epoch_minutes": 2.0}
    assert advice([retrain, pool]) == "Retraining takes 3 times as long as the pool."
    unknown = {**retrain, "minutes": None}
    assert advice([unknown, pool]).startswith("The pool takes as long as 2 epochs over the rows that stay")
