"""The configs for one GPU, every line of them, on a tiny model: few authors, an epoch, one value a search."""

from pathlib import Path

import pytest
from test_tofu import write
from tiny_language import save

from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.pipeline import run
from negmerge.tasks.causal_lm.sources import tofu

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINED = ("gradient-ascent", "fine-tune", "grad-diff", "npo", "simnpo", "idk-dpo", "rmu", "ssd")
MERGED = (
    "best-single", "uniform", "ties", "consensus", "soft-consensus", "random-mask", "importance",
    "importance consensus", "msa",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "first"),
    [("tofu-llama", 180), ("tofu-llama-forget05", 190), ("tofu-llama-forget01", 198), ("tofu-all-smollm2", 180)],
)
def test_the_authors_are_those_of_tofu_and_nobody_is_trained_on_what_is_held_out(name, first, tmp_path):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert config.name == name and config.data.forget.groups == [f"author {i}" for i in range(first, 200)]
    found = tofu.load(tofu.Settings(**config.data.source_settings | {"path": str(write(tmp_path / "tofu"))}))
    start, stop = config.data.train_rows
    assert [found.train.classes[found.train.labels[row]] for row in (0, start, stop - 1)] == [
        "author 5", "author 10", "author 199",
    ]  # fmt: skip
    assert config.data.validation.rows == (0, start) and stop == len(found.train) and len(found.test) == 100
    assert config.base.train.epochs == (8 if name == "tofu-all-smollm2" else 5) and len(config.methods) == 26


@pytest.mark.heavy(150)
def test_the_config_runs_scaled_down(tmp_path):
    raw = load_config(CONFIGS / "tofu-llama.yaml").resolved()
    save(tmp_path / "model", chat=True, longest=512)
    raw["model"]["path"], raw["data"]["path"] = str(tmp_path / "model"), str(write(tmp_path / "tofu"))
    raw["data"] |= {"authors": [175, 200], "unseen": [0, 2], "train_rows": [40, 500], "validation": {"rows": [0, 40]}}
    raw["workers"], raw["threads"], raw["device"] = 1, 1, "cpu"
    raw["base"]["train"] |= {"epochs": 1, "warmup_steps": 2}
    raw["pool"]["grid"] = {"lr": [3e-4, 1e-3], "epochs": [1]}
    raw["selection"] |= {"search": "grid", "step": 1.0}
    raw["evidence"]["most"] = 20
    raw["evidence"]["controls"] = 0
    raw["methods"] = [{k: v for k, v in method.items() if v is not None} for method in raw["methods"]]
    for method in raw["methods"]:
        if isinstance(method.get("projection"), dict):
            method["projection"] |= {"samples": 40, "strength": [10.0]}
        if isinstance(method.get("lr"), list):
            method |= {"lr": method["lr"][:1], "epochs": 1}
        if method["name"] == "ssd":
            method |= {"samples": 20, "threshold": 5.0}
    results = run(check_config(raw), tmp_path / "run")
    assert set(results["methods"]) == {*MERGED, *(f"{row} projected" for row in MERGED), *TRAINED}
    assert results["task"]["rows"]["forget"] == 400 and results["task"]["rows"]["test"] == 40
    for row in results["methods"].values():
        assert 0 <= row["forget"] <= 100 and 0 <= row["forget_quality"] <= 1 and row["gap"] is not None
    assert results["task"]["measure"] == "probability" and results["verdict"]["word"]
