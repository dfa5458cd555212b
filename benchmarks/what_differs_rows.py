"""The settings, draws and rows of benchmarks/what_differs.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CONFIRMING = "confirmed"
RETAIN = {"recalibrate": "retain", "rows": 500}


def projected(*strengths: float) -> dict[str, Any]:
    """Return the projection on retain inputs at these strengths."""
    return {"rows": "retain", "samples": 600, "strength": list(strengths)}


# group → rows; every row is on one pool, negated at an α from one search, with the config's policy for statistics.
GROUPS: dict[str, list[Any]] = {
    "merges": ["uniform", "consensus"],
    "ties": [{"name": "ties", "density": 0.2, "scope": "model"}],
    "filters": ["magmax", {"name": "consensus", "label": "consensus of 75 %", "threshold": 0.75}, "soft-consensus"],
    "singles": ["best-single"],
    "controls": [
        "random-mask",
        "shuffled-signs",
        {"name": "breadcrumbs", "label": "magnitude alone", "density": 0.5, "gamma": 0.0},
        {"name": "magnitude-consensus", "label": "magnitude × agreement", "density": 0.5},
    ],
    "statistics": [
        {"name": "uniform", "label": "uniform, keep", "buffers": "keep"},
        {"name": "uniform", "label": "uniform, negate", "buffers": "negate"},
        {"name": "uniform", "label": "uniform, recalibrated on retain rows", "buffers": RETAIN},
    ],
    "projection": [{"name": "uniform", "label": "uniform projected, λ = 0.3", "projection": projected(0.3)}],
    "stronger-projection": [
        {"name": "uniform", "label": f"uniform projected, λ = {strength:g}", "projection": projected(strength)}
        for strength in (1.0, 3.0)
    ],
    "projected-merges": [
        {"name": "consensus", "label": "consensus projected, λ = 0.3", "projection": projected(0.3)},
        {
            "name": "ties",
            "label": "ties projected, λ = 0.3",
            "density": 0.2,
            "scope": "model",
            "projection": projected(0.3),
        },
    ],
    "layers": ["alpha-by-layer"],
    "projected-layers": [
        {"name": "alpha-by-layer", "label": "alpha-by-layer projected, λ = 0.3", "projection": projected(0.3)},
    ],
    "elements": [
        {"name": "uniform", "label": "convolutions alone", "include": [r"conv\d?\.weight$"]},
        {"name": "uniform", "label": "all but normalisation", "exclude": [r"bn\d?\."]},
        {"name": "uniform", "label": "normalisation alone", "include": [r"bn\d?\."]},
        {"name": "uniform", "label": "head alone", "include": [r"^linear\."]},
    ],
    "learned": [{"name": "learned-coefficients", "batch_size": 64, "start": 8.0}],
    "learned-by-layer": [
        {"name": "learned-coefficients", "label": "learned by layer", "by": "layer", "batch_size": 64, "start": 8.0}
    ],
    "contrast": ["contrast"],
    "two-step": ["two-step"],
    "unlearning-runs": [
        {"name": "unlearning-pool", "label": "random-label runs, uniform", "method": "uniform"},
        {"name": "unlearning-pool", "label": "random-label runs, consensus", "method": "consensus"},
        {
            "name": "unlearning-pool",
            "label": "random-label runs, uniform projected, λ = 0.3",
            "method": "uniform",
            "projection": projected(0.3),
        },
    ],
    "salun-runs": [
        {"name": "unlearning-pool", "label": f"SalUn runs, {merge}", "run": "salun", "method": merge, **more}
        for merge, more in (
            ("uniform", {}),
            ("consensus", {}),
            ("ties", {"settings": {"density": 0.2, "scope": "model"}}),
        )
    ],
    "importance": [
        "importance",
        {"name": "importance", "label": "importance, forget rows alone", "weight": 0.0},
        "ssd",
    ],
    "noise": [{"name": "retrain", "label": "a second Retrain", "seed": 1}],
}
TRAINED_ON_RETAIN = ("learned-coefficients", "learned by layer")  # rows of their own kind: never the winner
PUBLISHED = ("uniform", "consensus", "ties", "random-mask")  # rows that are confirmed beside the chosen one


@dataclass(frozen=True)
class Draw:
    """A forget set with its base and Retrain: what it changes in the setting's config."""

    name: str
    changes: tuple[str, ...]
    confirms: bool = False


@dataclass(frozen=True)
class Setting:
    """A network, its draws and the groups of rows; `{data}` and `{models}` stand for the folders given."""

    config: str
    draws: tuple[Draw, ...]
    changes: tuple[str, ...] = ()
    groups: Sequence[str] = field(default_factory=lambda: list(GROUPS))
    bound_steps: int = 100


def _given(stem: str) -> tuple[str, ...]:
    return (
        f"data.forget={{{{rows: {{models}}/{stem}-split.json}}}}",
        f"base={{{{checkpoint: {{models}}/{stem}-original.safetensors}}}}",
        f"reference={{{{checkpoint: {{models}}/{stem}-retrain.safetensors}}}}",
        "seeds=[0]",
    )


def _own(seed: int, first: int, **how: bool) -> Draw:
    changes = (f"data.train_rows=[{first}, {first + 5000}]", f"data.seed={seed}", f"seeds=[{seed}]")
    return Draw(f"draw{seed}", changes, **how)


PARQUET = ("data.source=parquet", "data.path={data}/cifar10")
TEN = (
    "data.train_rows=[0, 10000]",
    "data.validation={{rows: [45000, 45500]}}",
    "pool.train.batch_size=256",
    "pool.grid={{epochs: [40, 60], weight_decay: [5.0e-5, 5.0e-4]}}",
)
SETTINGS = {
    "resnet20": Setting(
        "cifar10-resnet20-differs.yaml",
        (
            Draw("given", (*_given("resnet20-cifar10-10k"), *TEN)),
            _own(2, 15000),
            _own(1, 10000, confirms=True),
        ),
        (*PARQUET, "workers=1", "threads=1"),
    ),
    "resnet18": Setting(
        "cifar10-resnet18-differs.yaml",
        (Draw("given", (*_given("resnet18-cifar10"), "data.train_rows=[0, 45000]")),),
        PARQUET,
    ),
}


def confirmed_rows(setting: Setting, chosen: str) -> list[Any]:
    """Return the rows of the confirming draw: the chosen one, the published ones, and the control of a mask."""
    rows = {label_of(row): row for group in setting.groups for row in GROUPS[group]}
    return [rows[name] for name in dict.fromkeys([chosen, *PUBLISHED])]


def label_of(row: Any) -> str:
    """Return the name of a row in the tables."""
    return row if isinstance(row, str) else row.get("label", row["name"])
