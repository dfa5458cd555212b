"""What a task is: everything that the rest of the package knows of rows, models, losses and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from negmerge.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from negmerge.requests.rows import Rows
    from negmerge.scores import Columns, Score

Capability = TypeVar("Capability")
ACCURACY = "accuracy"
PASSAGE = "passage"  # the noun of rows that are texts and answer nothing
TESTED = ("test", "test_forget")


class Batches(Protocol):
    """Seeded batches of some rows: `batches(epoch)` yields those of an epoch, `steps` is how many there are."""

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        ...

    def __call__(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of epoch 0, 1, …; those of an epoch hang on it and on the seed alone."""
        ...


class Task(Protocol):
    """Rows, models, losses and scores of one kind.

    It holds names and numbers only, so it can be sent to another process (but where `SENT` is off). Rows are int64
    numbers in one table, the test table standing behind the train table. A batch is the task's own affair: what
    `batches` and `batch` make, `loss` takes. Outputs of a model never leave a batch: `observe` returns columns, one
    number for each row.
    """

    NAME: ClassVar[str]
    NOUN: ClassVar[str]  # of one row, in the report and in progress
    MEASURE: ClassVar[str] = ACCURACY  # what its scores of forget and retain rows are, in percent
    KNOWN: ClassVar[str] = "correct"  # the column, of shares or bools, by which evidence tells how well a row is known
    # What is told group by group: the mean of a column over rows of these parts, of the first of them that has any.
    BY_GROUP: ClassVar[tuple[tuple[tuple[str, ...], ...], str]] = ((TESTED,), "correct")
    SENT: ClassVar[bool] = True  # to worker processes; where not, everything is done in this one
    COLUMNS: ClassVar[tuple[str, ...]]  # that `observe` can return

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores that are reported of a model, in the order of the tables."""
        ...

    def rows(self) -> Rows:
        """Return the rows of both tables: how many, the group of each, and their fingerprint."""
        ...

    def template(self) -> nn.Module:
        """Return a model of the task's kind, whatever its weights: what is counted and timed."""
        ...

    def open(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return the model with the weights of a checkpoint, in evaluation mode. Raises InputError for one that does
        not fit."""
        ...

    def uncompiled(self) -> Task:
        """Return the task with nothing compiled, for a few steps that are timed; itself, where nothing is."""
        return self

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device, in place, and return it."""
        ...

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors that are stored of a model, on the CPU."""
        ...

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> Batches:
        """Return the batches to train on, as the training settings say."""
        ...

    def batch(self, rows: Tensor, device: torch.device | str) -> Any:
        """Return one batch of these rows as they are, in their order."""
        ...

    def loss(self, model: nn.Module, batch: Any, settings: Any = None) -> Tensor:
        """Return the loss that training minimises, a scalar: the mean over the batch, as the settings say."""
        ...

    def run_model(self, model: nn.Module, batch: Any) -> object:
        """Pass a batch through a model; labels are not needed."""
        return self.loss(model, batch)

    def real_tokens(self, batch: Any) -> Tensor | None:
        """Return a mask, bool [rows, length], of the tokens of a batch that are not padding; None where all count."""
        return None

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return for each part, named rows, the columns asked for: a tensor [n] each, on the CPU; in one pass."""
        ...


@runtime_checkable
class RowLosses(Protocol):
    """A task that knows the loss of each row: what methods need that weigh or differentiate single rows."""

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each row of a batch, [b], without what settings add to it."""
        ...


@runtime_checkable
class Pretrained(Protocol):
    """A task whose models may come with weights of their own."""

    def pretrained(self) -> dict[str, Tensor]:
        """Return the weights that the model comes with."""
        ...


@runtime_checkable
class Starts(Protocol):
    """A task whose models can be trained from scratch."""

    def start(self, seed: int) -> nn.Module:
        """Return the model that a training from scratch begins with."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """A task whose rows have one label each of a fixed number: what methods need that teach other labels."""

    @property
    def classes(self) -> int:
        """The number of labels, and of outputs."""
        ...

    def labels(self, batch: Any) -> Tensor:
        """Return the labels of a batch, int64 [b]."""
        ...

    def relabel(self, batch: Any, labels: Tensor) -> Any:
        """Return the batch with other labels, int64 [b]; label `classes` is that of an added output."""
        ...

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a label for each, int64 [b] on the CPU, drawn uniformly from those that the row can have."""
        ...


@runtime_checkable
class RowOutputs(Protocol):
    """A task whose rows are answered by a number for each label: what tests need that lower or raise one of them."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Return float32 logits [b, labels] of a batch."""
        ...

    def labels(self, batch: Any) -> Tensor:
        """Return the labels of a batch, int64 [b]."""
        ...


@runtime_checkable
class Pixels(Protocol):
    """A task whose inputs can be moved: what methods need that step across a boundary."""

    def nearest_labels(self, model: nn.Module, batch: Any, bound: float) -> Tensor:
        """Return the label other than its own that the model prefers one signed-gradient step away from each row."""
        ...


@runtime_checkable
class Shows(Protocol):
    """A task that can show a row to people: what a page needs that says what a model makes of it."""

    def show(self, row: int) -> Tensor | str | None:
        """Return an image, uint8 [C, H, W], C 1 or 3, or a text; None where nothing of the row is kept."""
        ...


@runtime_checkable
class Ensembles(Protocol):
    """A task that opens several models of one kind as one that answers with their mean."""

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of an ensemble of models with these tensors."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """A task whose rows are sequences with a likelihood: what methods need that compare it with another model's."""

    def likelihoods(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return for each sequence Σ log p of what is predicted of it, [b] with a graph, and of how many, int64 [b]."""
        ...


@runtime_checkable
class Refuses(Protocol):
    """A task whose prompts can be answered by a refusal."""

    def refuse(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the batch with refusals, drawn from the generator, in the place of the answers."""
        ...


@runtime_checkable
class Layers(Protocol):
    """A task whose models are a stack of blocks, each of which hands on a vector for every token."""

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Return the blocks of a model, in the order in which they are called."""
        ...


@runtime_checkable
class Answers(Protocol):
    """A task whose models answer in words, which a reader can be shown."""

    def answers(self, model: nn.Module, rows: Tensor) -> list[tuple[str, str, str]]:
        """Return prompt, right answer and what the model says by itself, of each row."""
        ...


@runtime_checkable
class FurtherParts(Protocol):
    """A task with rows that no request is about and no model is trained on, of which scores are reported."""

    def further_parts(self) -> dict[str, Tensor]:
        """Return their numbers in the task's table, by the name of their part."""
        ...


CAPABILITIES: dict[type, str] = {
    RowLosses: "the loss of each row",
    Pretrained: "weights of its own",
    Starts: "models that can be trained from scratch",
    Classifies: "rows with one label each, of a fixed number",
    RowOutputs: "an output for each label",
    Pixels: "inputs that can be moved across a boundary",
    Shows: "rows that can be shown",
    Ensembles: "models that answer together",
    Likelihood: "rows with a likelihood",
    Refuses: "prompts that can be refused",
    Layers: "models that are a stack of blocks",
    Answers: "answers in words",
    FurtherParts: "parts that no request is about",
}


def need(task: Task, capability: type[Capability], who: str) -> Capability:
    """Return the task as one that has a capability. Raises InputError that names who lacks what."""
    if not isinstance(task, capability):
        what = CAPABILITIES[capability]
        raise InputError(f"{who} needs {what}, which the task {task.NAME} does not have; leave {who} out")
    return task
