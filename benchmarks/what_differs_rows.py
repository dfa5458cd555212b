"""The settings, draws and rows of benchmarks/what_differs.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CONFIRMING = "confirmed"
RETAIN = {"recalibrate": "retain", "rows": 500}
TIES = {"name": "ties", "density": 0.2, "scope": "model"}
THREE_QUARTERS = {"name": "consensus", "label": "consensus of 75 %", "threshold": 0.75}
MAGNITUDE = {"name": "breadcrumbs", "label": "magnitude alone", "density": 0.5, "gamma": 0.0}
BOTH = {"name": "magnitude-consensus", "label": "magnitude × agreement", "density": 0.5}

Groups = Mapping[str, Sequence[Any]]  # group → rows


def label_of(row: Any) -> str:
    """Return the name of a row in the tables."""
    return row if isinstance(row, str) else row.get("label", row["name"])


def projected(row: Any, strength: float) -> dict[str, Any]:
    """Return a row with its vector projected on retain inputs."""
    whole = {"name": row} if isinstance(row, str) else row
    label = f"{label_of(row)} projected, λ = {strength:g}"
    return {**whole, "label": label, "projection": {"rows": "retain", "samples": 600, "strength": [strength]}}


def runs(merge: str, run: str, name: str, **more: Any) -> dict[str, Any]:
    """Return the row of a pool of unlearning runs."""
    return {"name": "unlearning-pool", "label": f"{name} runs, {merge}", "run": run, "method": merge, **more}


def elements(convolutions: str, norms: str, head: str) -> list[dict[str, Any]]:
    """Return rows of the mean of some tensors alone, by patterns of their names."""
    return [
        {"name": "uniform", "label": "convolutions alone", "include": [convolutions]},
        {"name": "uniform", "label": "all but normalisation", "exclude": [norms]},
        {"name": "uniform", "label": "normalisation alone", "include": [norms]},
        {"name": "uniform", "label": "head alone", "include": [head]},
    ]


# Every row is on one pool, negated at an α from one search, with the config's policy for statistics unless it says so.
GROUPS: Groups = {
    "merges": ["uniform", "consensus"],
    "ties": [TIES],
    "filters": ["magmax", THREE_QUARTERS, "soft-consensus"],
    "singles": ["best-single"],
    "controls": ["random-mask", "shuffled-signs", MAGNITUDE, BOTH],
    "statistics": [
        {"name": "uniform", "label": "uniform, keep", "buffers": "keep"},
        {"name": "uniform", "label": "uniform, negate", "buffers": "negate"},
        {"name": "uniform", "label": "uniform, recalibrated on retain rows", "buffers": RETAIN},
    ],
    "projection": [projected("uniform", 0.3)],
    "stronger-projection": [projected("uniform", strength) for strength in (1.0, 3.0)],
    "projected-merges": [projected("consensus", 0.3), projected(TIES, 0.3)],
    "layers": ["alpha-by-layer"],
    "projected-layers": [projected("alpha-by-layer", 0.3)],
    "elements": elements(r"conv\d?\.weight$", r"bn\d?\.", r"^linear\."),
    "learned": [{"name": "learned-coefficients", "batch_size": 64, "start": 8.0}],
    "learned-by-layer": [
        {"name": "learned-coefficients", "label": "learned by layer", "by": "layer", "batch_size": 64, "start": 8.0}
    ],
    "contrast": ["contrast"],
    "two-step": ["two-step"],
    "unlearning-runs": [
        *(runs(merge, "random-labels", "random-label") for merge in ("uniform", "consensus")),
        projected(runs("uniform", "random-labels", "random-label"), 0.3),
    ],
    "salun-runs": [
        *(runs(merge, "salun", "SalUn") for merge in ("uniform", "consensus")),
        runs("ties", "salun", "SalUn", settings={"density": 0.2, "scope": "model"}),
    ],
    "importance": [
        "importance",
        {"name": "importance", "label": "importance, forget rows alone", "weight": 0.0},
        "ssd",
    ],
    "noise": [{"name": "retrain", "label": "a second Retrain", "seed": 1}],
}
# The network of 34 thousand parameters: few stages, as opening its run takes as long as a row; λ = 10 was the best.
STRONG = 10.0
SMALL: Groups = {
    "merges": ["uniform", "consensus", projected("uniform", STRONG)],
    "filters": ["magmax", THREE_QUARTERS, "soft-consensus", "trimmed-mean", BOTH, TIES],
    "projected-filters": [
        projected(row, STRONG) for row in ("magmax", THREE_QUARTERS, "soft-consensus", "trimmed-mean", BOTH, TIES)
    ],
    "controls": ["random-mask", "shuffled-signs", MAGNITUDE],
    "projected-controls": [projected(row, STRONG) for row in ("consensus", "random-mask", MAGNITUDE)],
    "importance": [
        *GROUPS["importance"],
        {"name": "importance", "label": "importance against unseen rows", "against": "validation"},
        projected("importance", STRONG),
    ],
    "elements": [
        *elements(r"^[036]\.", r"^[147]\.", r"^11\."),
        projected({"name": "uniform", "label": "convolutions alone", "include": [r"^[036]\."]}, STRONG),
        {"name": "breadcrumbs", "label": "the largest tenth", "density": 0.1, "gamma": 0.0},
    ],
    "strengths": [projected("uniform", strength) for strength in (1.0, 100.0)],
    "contrast": ["contrast", projected("contrast", STRONG)],
    "msa": ["msa", projected("msa", STRONG)],
    "two-step": ["two-step"],
    "runs": [
        *GROUPS["unlearning-runs"][:2],
        projected(GROUPS["unlearning-runs"][0], STRONG),
        *GROUPS["salun-runs"],
    ],
    "layers": ["alpha-by-layer", projected("alpha-by-layer", STRONG)],
    "statistics": GROUPS["statistics"],
    "learned": [*GROUPS["learned"], *GROUPS["learned-by-layer"]],
    "singles": GROUPS["singles"],
    "trained": ["random-labels", "salun", "fine-tune"],
    "noise": GROUPS["noise"],
}
# Rows of a kind of their own, never the winner: they train on retain rows.
TRAINED_ON_RETAIN = ("learned-coefficients", "learned by layer", "contrast", f"contrast projected, λ = {STRONG:g}")
PUBLISHED = ("uniform", "consensus", "ties", "random-mask")


@dataclass(frozen=True)
class Draw:
    """A forget set with its base and Retrain: what it changes in the setting's config, and its folder if not `name`."""

    name: str
    changes: tuple[str, ...]
    confirms: bool = False
    folder: str | None = None


@dataclass(frozen=True)
class Setting:
    """A network, its draws and the groups of rows; `{data}` and `{models}` stand for the folders given."""

    config: str
    draws: tuple[Draw, ...]
    changes: tuple[str, ...] = ()
    groups: Groups = field(default_factory=lambda: GROUPS)
    bound_steps: int = 100
    beside: tuple[str, ...] = PUBLISHED  # rows that are confirmed beside the chosen one


def _given(stem: str) -> tuple[str, ...]:
    return (
        f"data.forget={{{{rows: {{models}}/{stem}-split.json}}}}",
        f"base={{{{checkpoint: {{models}}/{stem}-original.safetensors}}}}",
        f"reference={{{{checkpoint: {{models}}/{stem}-retrain.safetensors}}}}",
        "seeds=[0]",
    )


def _shared(seed: int, **how: bool) -> Draw:
    """Return a draw of benchmarks/open_questions.py: its base, its Retrain and its pool are taken over where it ran."""
    return Draw(f"draw{seed}", (f"data.seed={seed}", f"seeds=[{seed}]"), folder=f"draw-{seed}", **how)


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
    "small": Setting(
        "studies/small-random.yaml",
        (_shared(0), _shared(1), _shared(2), _shared(3, confirms=True)),
        (*PARQUET, "workers=1"),
        SMALL,
        beside=(*PUBLISHED, f"uniform projected, λ = {STRONG:g}", "a second Retrain"),
    ),
}


def confirmed_rows(setting: Setting, chosen: str) -> list[Any]:
    """Return the rows of the confirming draw: the chosen one, and those that stand beside it."""
    rows = {label_of(row): row for group in setting.groups.values() for row in group}
    return [rows[name] for name in dict.fromkeys([chosen, *setting.beside])]
