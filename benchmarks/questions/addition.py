"""Task addition: two tasks learnt apart and added, θ₀ + α·(τ₁ + τ₂), each τ a merge of a pool of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.projection.recipe import merge_recipe
from negmerge.selection.buffers import recalibrate
from questions.draws import BATCH, Draw, Row
from questions.tables import Spread, markdown

TITLE = "Task addition"
SECOND = 0.4  # share of the classes, from the first, that are the second task
SHOWN = 0.7  # share of the validation rows that the tasks are learnt from; α is chosen on the others
RATES, EPOCHS = (0.01, 0.02, 0.05), (5, 10)
ALPHAS = tuple(round(0.1 * i, 1) for i in range(1, 16))
MERGES: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform": ("uniform", {}),
    "consensus": ("consensus", {}),
    "consensus of 75 %": ("consensus", {"threshold": 0.75}),
    "ties": ("ties", {}),
    "random-mask": ("random-mask", {}),
}


def measure(draw: Draw) -> list[Row]:
    """Return the base, the best model fine-tuned on both tasks, and the sum of both pools by each merge."""
    asked = [sorted(draw.members), RATES, EPOCHS, SHOWN, SECOND, ALPHAS, list(MERGES)]
    found: list[Row] = draw.kept("addition", asked, lambda: Addition(draw).rows())
    return found


class Addition:
    """Two tasks of a draw: rows that its base never saw, of some classes and of the others."""

    def __init__(self, draw: Draw) -> None:
        self.draw, rows = draw, draw.material.parts["validation"]
        group = draw.material.task.rows().group_of
        first = round(SECOND * len(draw.material.task.rows().groups))
        shown, self.held = rows[: int(SHOWN * len(rows))], rows[int(SHOWN * len(rows)) :]
        self.tasks = {"first": shown[group[shown] >= first], "second": shown[group[shown] < first]}
        self.shown, self.first = shown, first

    def pool(self, name: str, rows: Tensor) -> dict[str, Path]:
        """Return the base fine-tuned on some rows at every rate and length."""
        draw = self.draw
        names = [(rate, epochs) for rate in RATES for epochs in EPOCHS]
        return {
            f"{name}-{rate:g}-{epochs}": draw.trained(
                f"task-{name}-{rate:g}-{epochs}", rows, {"lr": rate, "epochs": epochs}
            )
            for rate, epochs in names
        }

    def scores(self, model: nn.Module, rows: Tensor) -> Row:
        """Return accuracy on rows of either task and on all, in percent."""
        seen = self.draw.material.task.observe(model, {"test": rows}, {"test": ["correct", "group"]})["test"]
        correct, second = seen["correct"].double(), seen["group"] < self.first
        parts = {"first": correct[~second], "second": correct[second], "all": correct}
        return {name: 100 * part.mean().item() for name, part in parts.items()}

    def opened(self, path: Path) -> nn.Module:
        """Return a model whose running statistics are those of the rows that both tasks are learnt from."""
        task, device = self.draw.material.task, self.draw.material.device
        model = task.open(path, device)
        recalibrate(model, ((len(p), task.batch(p, device)) for p in self.shown.split(BATCH)), task.loss)
        return model

    def rows(self) -> list[Row]:
        """Return a row for each way; α and single members are chosen on rows held out, and scored on test rows."""
        test = torch.cat([self.draw.material.parts[part] for part in ("test", "test_forget")])
        base = self.draw.material.task.open(self.draw.run.base, self.draw.material.device)
        pools = {name: self.pool(name, rows) for name, rows in self.tasks.items()}
        both = self.pool("both", self.shown)
        best = max(both, key=lambda name: self.scores(self.opened(both[name]), self.held)["all"])
        single = {
            name: max(pool, key=lambda one: self.scores(self.opened(pool[one]), self.held)[name])
            for name, pool in pools.items()
        }
        found = [{"way": "base", **self.scores(base, test)}]
        found.append({"way": "trained on both, best of 6", **self.scores(self.opened(both[best]), test)})
        terms = {"best single of each": [([pools[n][single[n]]], "uniform", {}) for n in pools]}
        terms |= {label: [(list(pool.values()), m, s) for pool in pools.values()] for label, (m, s) in MERGES.items()}
        for label, sum_of in terms.items():
            at = {alpha: self.scores(self.opened(self.added(sum_of, alpha)), self.held)["all"] for alpha in ALPHAS}
            alpha = max(at, key=lambda one: (at[one], -one))
            found.append({"way": label, "alpha": alpha, **self.scores(self.opened(self.added(sum_of, alpha)), test)})
        return found

    def added(self, terms: Sequence[tuple[Sequence[Path], str, Mapping[str, Any]]], alpha: float) -> Path:
        """Return θ₀ + α·Σ method(pool), written by a recipe."""
        target = self.draw.work / "added.safetensors"
        recipe = {
            "base": str(self.draw.run.base),
            "terms": [
                {
                    "members": [str(path) for path in members],
                    "method": method,
                    "settings": dict(settings),
                    "sign": "+",
                    "alpha": alpha,
                }
                for members, method, settings in terms
            ],
        }
        merge_recipe(recipe, target, hash_inputs=False, overwrite=True)
        return target


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each way, its mean over the draws."""
    lines = []
    for i, row in enumerate(draws[0]):
        rows = [draw[i] for draw in draws]
        alpha = f"{Spread.of(one['alpha'] for one in rows).mean:.2f}" if "alpha" in row else "–"
        lines.append([row["way"], alpha, *(Spread.of(one[key] for one in rows) for key in ("first", "second", "all"))])
    return markdown(["way", "α", "first task", "second task", "all"], lines)
