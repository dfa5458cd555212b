"""Every row that merges, plain and projected, on the tiny language model that knows its facts."""

import pytest
from tiny_language import config_of

from negmerge.checkpoints import write_state_dict
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run

pytestmark = pytest.mark.heavy(60)
MERGES = [
    "best-single",
    "uniform",
    "ties",
    "consensus",
    "soft-consensus",
    "random-mask",
    {"name": "importance", "label": "importance"},
    {"name": "importance", "method": "consensus", "label": "importance consensus"},
]
POOLS = {
    "adapters": {"adapter": {"r": 8}, "train": {"batch_size": 4}, "grid": {"lr": [3e-3, 1e-2], "epochs": [4, 8]}},
    "whole models": {"train": {"batch_size": 4, "weight_decay": 0.01}, "grid": {"lr": [1e-3, 2e-3], "seed": [0, 1]}},
}


@pytest.mark.parametrize("kind", POOLS)
def test_every_merge_moves_the_right_way(kind, finished, seed_run, folder, tmp_path):
    origin = tmp_path / "start.safetensors"
    write_state_dict(origin, seed_run.material.task.trained(seed_run.material.task.start(0)))
    changes = {
        "base": {"checkpoint": str(seed_run.base)},
        "reference": {"checkpoint": str(seed_run.place.path / "reference" / "model.safetensors")},
        "pool": {**POOLS[kind], "train": {"epochs": 6, **POOLS[kind]["train"]}},
        "methods": [*MERGES, {"name": "msa", "origin": str(origin)}],
        "projection": {"rows": "retain", "samples": 14, "strength": [1.0]},
        "evaluation": {},
    }
    if kind == "adapters":
        del changes["pool"]["train"]["epochs"]
    results = run(check_config(config_of(folder, **changes)), tmp_path / "run")
    base, rows = results["base"], results["methods"]
    names = [one if isinstance(one, str) else one["label"] for one in MERGES] + ["msa"]
    assert list(rows) == [row for name in names for row in (name, f"{name} projected")]
    for name, row in rows.items():
        assert row["alpha"] > 0 and row["forget"] < base["forget"] - 2, name
        assert row["retain"] >= 0.9 * base["retain"], name
        # vectors of a pool that began with drawn weights have no reason to spare the other facts of a model this small
        assert row["retain"] > row["forget"] or name.startswith("msa"), name
        assert row["forget_extraction"] <= base["forget_extraction"], name
    if kind == "adapters":
        assert results["pool"]["consensus"] > 1.5 * results["pool"]["chance"]  # one start, so signs are no chance
