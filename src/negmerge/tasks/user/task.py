"""Tasks made of a user's own module, data sets, loss and evaluation."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from negmerge.checkpoints import read_state_dict
from negmerge.scores import Columns, Need, Score, accuracy_of, mean_loss_of, svc_confidence
from negmerge.tasks.columns import columns_of
from negmerge.tasks.task import Task
from negmerge.tasks.user.batches import IGNORED, Loading, RowBatches, aligned, labels_of, logits_of, move, row_losses
from negmerge.tasks.user.fingerprint import fingerprint_row

EVALUATED = "evaluate"  # the part of one row whose columns are what the user's `evaluate` returns
BATCH = 256  # rows in a pass of evaluation


@dataclass(frozen=True, eq=False)
class UserRows:
    """The rows of all data sets, one behind the other; they have no groups.

    The id of a row is its index in its data set; of a `Subset`, the index in what it is a subset of.
    """

    sets: Sequence[Dataset[Any]]
    hash: str
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(_size, self.sets))

    @property
    def ids(self) -> list[str]:
        """The index of each row, as text."""
        return [str(_index_in(data, row)) for data in self.sets for row in range(_size(data))]

    def row_hash(self, row: int) -> str | None:
        """Return the hash of a row as its data set gives it; None where that has no bytes, or differs each time."""
        table: Dataset[Any] = ConcatDataset(self.sets)
        first, again = (fingerprint_row(table[row]) for _ in range(2))
        return first if first == again else None

    @property
    def group_of(self) -> Tensor:
        """No row has a group."""
        return torch.empty(0, dtype=torch.int64)

    def fingerprint(self) -> str:
        """Return the hash of the data sets, or their key."""
        return self.hash


def _size(data: Any) -> int:
    return len(data)


def _index_in(data: Any, row: int) -> int:
    """Return the index of a row in what a data set is a subset of, or else in itself."""
    while isinstance(data, Subset):
        data, row = data.dataset, int(data.indices[row])
    return row


@dataclass(frozen=True, eq=False)
class UserTask(Task):
    """A user's module and data sets; `sets` are the data sets by part, `model` is never changed.

    `forward(model, batch)` returns outputs, `objective(outputs, batch)` a scalar. The scores are what
    `evaluate(model)` returns, whose names are `names`.
    """

    model: nn.Module
    sets: Mapping[str, Dataset[Any]]
    forward: Callable[[nn.Module, Any], Any]
    objective: Callable[[Any, Any], Tensor]
    loading: Loading
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    names: tuple[str, ...] = ()
    fingerprint: str = ""

    NAME: ClassVar[str] = "user"
    NOUN: ClassVar[str] = "row"
    SENT: ClassVar[bool] = False
    COLUMNS: ClassVar[tuple[str, ...]] = ()

    @property
    def device(self) -> torch.device:
        """The device that the user's module is on."""
        return next(self.model.parameters()).device

    @property
    def table(self) -> Dataset[Any]:
        """All rows, the data sets one behind the other."""
        return ConcatDataset(list(self.sets.values()))

    def parts(self) -> dict[str, Tensor]:
        """Return the row numbers of every data set, and of the one row that stands for `evaluate`."""
        found, start = {}, 0
        for name, data in self.sets.items():
            found[name] = torch.arange(start, start + len(data))  # type: ignore[arg-type]
            start += len(data)  # type: ignore[arg-type]
        return {**found, EVALUATED: torch.zeros(1 if self.evaluate else 0, dtype=torch.int64)}

    @property
    def scores(self) -> tuple[Score, ...]:
        """What `evaluate` returns, each a part of the gap."""
        return tuple(
            Score(
                name=name,
                title=name,
                about=name,
                needs=frozenset({Need("model", EVALUATED, name)}),
                compute=lambda observed, draw, name=name: float(observed["model"][EVALUATED][name][0]),  # type: ignore[misc]
                aim="lower" if name == "forget" else "higher" if name == "retain" else "reference",
                in_gap=True,
                in_curve=True,
            )
            for name in self.names
        )

    def rows(self) -> UserRows:
        """Return how many rows there are."""
        return UserRows(tuple(self.sets.values()), self.fingerprint)

    def template(self) -> nn.Module:
        """Return a copy of the user's module."""
        return copy.deepcopy(self.model)

    def open(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return a copy of the user's module with the weights of a checkpoint."""
        model = self.template()
        model.load_state_dict(read_state_dict(checkpoint))
        return model.to(device).eval()

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device."""
        return model.to(device)

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all tensors of a model."""
        return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> RowBatches:
        """Return shuffled batches, as a DataLoader makes them."""
        return RowBatches(self.table, rows, settings.batch_size, self.loading, seed, device)

    def batch(self, rows: Tensor, device: torch.device | str) -> Any:
        """Return the one batch that a DataLoader makes of these rows."""
        (found,) = self.loading.loader(self.table, rows, len(rows), torch.Generator(), shuffle=False)
        return move(found, device)

    def loss(self, model: nn.Module, batch: Any, settings: Any = None) -> Tensor:
        """Return the user's loss of a batch."""
        return self.objective(self.forward(model, batch), batch)

    def run_model(self, model: nn.Module, batch: Any) -> object:
        """Pass a batch through a model."""
        return self.forward(model, batch)

    def real_tokens(self, batch: Any) -> Tensor | None:
        """Return the `attention_mask` of a batch that is a mapping and has one."""
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        return mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return what `evaluate` returns as columns of one row."""
        return {part: self._evaluated(model) if part == EVALUATED else {} for part in parts}

    @torch.no_grad()
    def _evaluated(self, model: nn.Module) -> Columns:
        assert self.evaluate is not None
        values = self.evaluate(model.eval())
        return {name: torch.tensor([float(values[name])], dtype=torch.float64) for name in self.names}


@dataclass(frozen=True, eq=False)
class UserClassifier(UserTask):
    """A user's module that classifies, `classes` of them; the scores are accuracies of the data sets, and the attack.

    Where each row has several answers (outputs [b, …, classes], labels [b, …], one for each token), every one of them
    counts in the accuracy, and the loss of a row is the mean over its answers. Labels of −100 are left out of both, and
    so are rows that have no other. With `next_token` the outputs at a token answer the label of the next one.
    """

    classes: int = field(default=0)
    next_token: bool = field(default=False)

    COLUMNS: ClassVar[tuple[str, ...]] = ("correct", "loss", "confidence", "entropy", "modified_entropy")

    @property
    def scores(self) -> tuple[Score, ...]:
        """The accuracy on each data set and, where there are unseen rows, the membership attack."""

        def part(name: str, title: str, about: str) -> Score:
            return accuracy_of(
                name, title, about, classes=self.classes, forgotten=name == "forget", in_gap=True, in_curve=True
            )

        found = [part("forget", "forget", "Forget rows right"), part("retain", "retain", "Other rows right")]
        found.append(mean_loss_of("retain", "retain loss", "Loss on other rows", in_curve=True))
        unseen = [part("validation", "validation", "Unseen rows right"), svc_confidence("validation")]
        return tuple(s for s in (*found, *unseen) if all(need.part in self.sets for need in s.needs))

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Return float32 logits of a batch, [answers, classes]."""
        logits: Tensor = logits_of(self.forward(model, batch)).float().flatten(0, -2)
        return logits

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the mean cross-entropy of each row's labels, [b]; 0 for a row that has none but −100."""
        return row_losses(*aligned(logits_of(self.forward(model, batch)), labels_of(batch), self.next_token))[0]

    @torch.inference_mode()
    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return columns of parts, one part after the other: of each answer (see `columns_of`), `loss` of each row."""
        model.eval()
        return {part: self._answers(model, rows, columns[part]) for part, rows in parts.items()}

    def _answers(self, model: nn.Module, rows: Tensor, names: Sequence[str]) -> Columns:
        device, found = next(model.parameters()).device, []
        for raw in self.loading.loader(self.table, rows, BATCH, torch.Generator(), shuffle=False):
            batch = move(raw, device)
            outputs = logits_of(self.forward(model, batch)).float().cpu()
            logits, labels = aligned(outputs, labels_of(batch).cpu(), self.next_token)
            real = labels != IGNORED
            columns = columns_of(logits[real], labels[real], [name for name in names if name != "loss"])
            if "loss" in names:
                losses, count = row_losses(logits.double(), labels)
                columns["loss"] = losses[count > 0]
            found.append(columns)
        return {name: torch.cat([one[name] for one in found]) if found else torch.empty(0) for name in names}

    def labels(self, batch: Any) -> Tensor:
        """Return the labels of a batch."""
        labels: Tensor = labels_of(batch)
        return labels

    def relabel(self, batch: Any, labels: Tensor) -> Any:
        """Return the batch with other labels; those of −100 stay."""
        labels = labels.to(self.device)
        labels = labels.masked_fill(labels_of(batch) == IGNORED, IGNORED)
        if isinstance(batch, Mapping):
            return {key: labels if value is labels_of(batch) else value for key, value in batch.items()}
        return type(batch)([batch[0], labels, *batch[2:]])

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a class for each label, drawn uniformly."""
        return torch.randint(self.classes, labels.shape, generator=generator)
