"""What is measured of a model: little, often, while α is chosen; everything, once, at the end."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.checkpoints import write_bytes_atomic
from negmerge.data.splits import Split
from negmerge.data.store import Store
from negmerge.evaluation import NegatedModel, predict
from negmerge.experiment.config import SelectionConfig
from negmerge.metrics import accuracy, membership_svc_confidence, per_class_accuracy
from negmerge.models._classifier import Classifier
from negmerge.selection import Selection, choose_alpha
from negmerge.training import derive_seed

Rows = dict[str, float | None]


@dataclass(frozen=True)
class Bench:
    """The data of a run and a model family, ready to measure any weights of it."""

    classifier: Classifier
    store: Store
    split: Split
    selection: SelectionConfig
    membership: Sequence[str]
    seed: int
    device: str

    @cached_property
    def forget_sample(self) -> tuple[Tensor, Tensor]:
        """What selection sees of the forgotten: held-out rows of their kind, or, where there are none, themselves."""
        held_out = self.split.validation_forget
        return self.store.table("train").take(held_out if len(held_out) else self.split.forget)

    @cached_property
    def retain_sample(self) -> tuple[Tensor, Tensor]:
        """The fixed sample of retain rows that selection sees."""
        rows = self.split.retain
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "selection"))
        chosen = torch.randperm(len(rows), generator=generator)[: self.selection.retain_rows].sort().values
        return self.store.table("train").take(rows[chosen])

    def quick_scores(self, model: nn.Module) -> dict[str, float]:
        """Return forget and retain accuracy on the samples that selection sees, in percent."""
        samples = {"forget": self.forget_sample, "retain": self.retain_sample}
        return {
            name: accuracy(predict(self.classifier, model, images), labels)
            for name, (images, labels) in samples.items()
        }

    def choose(
        self, base: Path, vector: Path, curve_file: Path, tell: Callable[[float, dict[str, float]], None]
    ) -> Selection:
        """Choose α for a merged vector; the points evaluated before an interruption are read from `curve_file`.

        `tell(alpha, scores)` hears of every point that is evaluated now.
        """
        known: dict[str, dict[str, float]] = json.loads(curve_file.read_text()) if curve_file.exists() else {}
        negated: list[NegatedModel] = []

        def evaluate(alpha: float) -> dict[str, float]:
            key = f"{alpha:.10g}"
            if key not in known:
                if not negated:
                    negated.append(NegatedModel(self.classifier.load(base, self.device), vector))
                known[key] = self.quick_scores(negated[0].set_alpha(alpha))
                write_bytes_atomic(curve_file, json.dumps(known).encode())
                tell(alpha, known[key])
            return known[key]

        rule = self.selection
        return choose_alpha(
            evaluate,
            rule.objective,
            floor=rule.floor,
            search=rule.search,
            step=rule.step,
            max_alpha=rule.max_alpha,
        )

    def full_scores(self, checkpoint: Path) -> dict[str, Any]:
        """Return every reported number of the weights in `checkpoint`, accuracies and attack in percent.

        Predictions are made once for each split; the test rows are touched here and nowhere else.
        """
        model = self.classifier.load(checkpoint, self.device)
        tables = {"train": self.store.table("train"), "test": self.store.table("test")}
        places = {
            "retain": ("train", self.split.retain),
            "forget": ("train", self.split.forget),
            "validation": ("train", self.split.validation),
            "validation_forget": ("train", self.split.validation_forget),
            "test": ("test", self.split.test),
            "test_forget": ("test", self.split.test_forget),
        }
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        for name, (table, rows) in places.items():
            images, labels = tables[table].take(rows)
            seen[name] = predict(self.classifier, model, images), labels
        scores: dict[str, Any] = {
            name: accuracy(*seen[name]) if len(rows) else None for name, (_, rows) in places.items()
        }
        test_logits = torch.cat([seen["test"][0], seen["test_forget"][0]])
        test_labels = torch.cat([seen["test"][1], seen["test_forget"][1]])
        scores["per_class"] = per_class_accuracy(test_logits, test_labels, self.classifier.classes)
        scores["membership"] = None
        if "svc-confidence" in self.membership:
            scores["membership"] = membership_svc_confidence(
                *seen["retain"], *seen["test"], *seen["forget"], seed=derive_seed(self.seed, "membership")
            )
        return scores
