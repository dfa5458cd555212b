"""What is reported of a model: everything, once, at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.requests.splits import Split
from negmerge.scores import accuracy, membership_svc_confidence, per_class_accuracy
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict_parts
from negmerge.tasks.image_classification.store import Store
from negmerge.training import derive_seed

IN_TRAIN = ("retain", "forget", "validation", "validation_forget")
IN_TEST = ("test", "test_forget")


@dataclass(frozen=True)
class Bench:
    """The data of a run and a model family, ready to measure any weights of it."""

    classifier: Classifier
    store: Store
    split: Split
    membership: Sequence[str]
    seed: int
    device: str
    most: int | None = None

    def _rows(self, name: str) -> Tensor:
        """Return the rows of a part; of retain and forget at most `most`, the same ones for every model."""
        rows: Tensor = getattr(self.split, name)
        if self.most is None or name not in ("retain", "forget") or len(rows) <= self.most:
            return rows
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "evaluation", name))
        return rows[torch.randperm(len(rows), generator=generator)[: self.most].sort().values]

    def full_scores(self, checkpoint: Path) -> dict[str, Any]:
        """Return every reported number of the weights in `checkpoint`, accuracies and attack in percent.

        Predictions are made in one pass over all parts; the test rows are touched here and nowhere else.
        """
        model = self.classifier.load(checkpoint, self.device)
        both = self.store.both()
        parts = {name: self._rows(name) for name in IN_TRAIN}
        parts |= {name: getattr(self.split, name) + len(both.first) for name in IN_TEST}
        seen = predict_parts(self.classifier, model, both.take, parts)
        scores: dict[str, Any] = {name: accuracy(*pair) if len(pair[1]) else None for name, pair in seen.items()}
        test_logits = torch.cat([seen["test"][0], seen["test_forget"][0]])
        test_labels = torch.cat([seen["test"][1], seen["test_forget"][1]])
        scores["per_class"] = per_class_accuracy(test_logits, test_labels, self.classifier.classes)
        scores["membership"] = None
        if "svc-confidence" in self.membership:
            scores["membership"] = membership_svc_confidence(
                *seen["retain"], *seen["test"], *seen["forget"], seed=derive_seed(self.seed, "membership")
            )
        return scores
