"""Train on from the base: what every method does that changes the weights epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.errors import NegmergeError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Batches
from negmerge.training import TrainSettings
from negmerge.unlearning.context import Context, Outcome, TrainingData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from negmerge.training.loop import Epoch

    Loss = Callable[[nn.Module, Any], Tensor]
    Hook = Callable[[nn.Module], None]


class Trains(Protocol):
    """The settings of a method that trains."""

    @property
    def epochs(self) -> int:
        """Passes over its rows."""
        ...

    def training(self, data: TrainingData) -> TrainSettings:
        """Return the settings of the training loop."""
        ...


class SgdSettings(BaseModel):
    """Settings of a training by SGD that starts at the base; the defaults are those of the published comparisons."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lr: float = Field(0.01, gt=0, description="learning rate, the same in every step")
    epochs: int = Field(10, ge=1, description="passes over the rows")
    batch_size: int = Field(256, ge=2, description="rows in one step")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="added to the gradient, times the weight")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient, or null")
    augment: str | None = Field(None, description="of images; as the base was trained unless given")
    optimizer: Literal["sgd", "adamw"] | None = Field(None, description="sgd unless given; adamw has no momentum")

    def training(self, data: TrainingData) -> TrainSettings:
        """Return the settings of the training loop."""
        return TrainSettings(
            optimizer=self.optimizer or "sgd",
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            clip=self.clip,
            schedule="constant",
            augment=data.augment if self.augment is None else self.augment,
        )


class AdamSettings(BaseModel):
    """Settings of a training by AdamW that starts at the base; the defaults are those published for language models."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lr: float = Field(1e-5, gt=0, description="learning rate, the same in every step")
    epochs: int = Field(10, ge=1, description="passes over the forget rows")
    batch_size: int = Field(
        32, ge=2, description="forget rows in one step, and as many retain rows where they are used"
    )
    accumulate: int = Field(1, ge=1, description="passes whose mean gradient makes a step")
    weight_decay: float = Field(0.01, ge=0, description="decoupled")
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient, or null")
    retain_weight: float = Field(1.0, ge=0, description="λ: the loss on retain rows counts so much")

    def training(self, data: TrainingData) -> TrainSettings:
        """Return the settings of the training loop."""
        return TrainSettings(
            optimizer="adamw",
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            weight_decay=self.weight_decay,
            clip=self.clip,
            schedule="constant",
            augment=data.augment,
        )


def batches_of(data: TrainingData, rows: Tensor, settings: Trains, part: str) -> Batches:
    """Return the seeded batches of some rows; `part` ("forget", "retain") is mixed in the seed."""
    return data.task.batches(rows, settings.training(data), derive_seed(data.seed, part), data.device)


@dataclass(frozen=True)
class Fitting:
    """What a method hands to the training loop: batches(epoch), the steps of an epoch, and where it is special.

    The loss is the task's and the model is the base unless given; `finish` turns the trained tensors into those
    that are written; the hooks stand before and after each step of the optimizer.
    """

    batches: Callable[[int], Iterable[Any]]
    steps: int
    loss: Loss | None = None
    model: nn.Module | None = None
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    before_step: Hook | None = None
    after_step: Hook | None = None


def fit_base(context: Context, settings: Trains, prepare: Callable[[], Fitting]) -> Outcome:
    """Train on from the base by the one loop, as `prepare()` says, and write the weights; done before, it is read back.

    The state after each epoch is kept in the method's folder until the training is done, and an interrupted one ends
    with the same weights: `prepare` must depend on the base, the data and the seed alone. Its time counts as training.

    Raises NegmergeError where the loss of an epoch, or a weight, is not finite.
    """
    from negmerge.training.loop import fit
    from negmerge.training.progress import Progress

    directory = context.directory
    checkpoint, facts_file = directory / "model.safetensors", directory / "training.json"
    if not facts_file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        progress = Progress(directory / "last-epoch.pt")
        fitting = prepare()
        model = context.data.task.open(context.base, context.data.device) if fitting.model is None else fitting.model
        start = progress.restore(model)

        def after(epoch: Epoch) -> None:
            progress.save(model, epoch)
            context.tell("epoch", number=epoch.number, epochs=settings.epochs, loss=epoch.loss)

        fit(
            model,
            fitting.batches,
            fitting.loss or context.data.task.loss,
            settings.training(context.data),
            steps_per_epoch=fitting.steps,
            start=start,
            on_epoch=after,
            before_step=fitting.before_step,
            after_step=fitting.after_step,
        )
        write_weights(checkpoint, model, fitting.finish)
        facts = {"losses": progress.losses, "seconds": progress.seconds}
        write_bytes_atomic(facts_file, json.dumps(facts).encode())
        progress.clear()
    return Outcome(checkpoint=checkpoint, seconds={"training": json.loads(facts_file.read_text())["seconds"]})


def write_weights(
    checkpoint: Path, model: nn.Module, finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> None:
    """Write the weights of a model, as `finish` returns them. Raises NegmergeError for one that is not finite."""
    state = model.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NegmergeError(f"the weights diverged: {name} holds NaN or Inf; lower the learning rate or the scale")
    state = finish(state) if finish else state
    write_state_dict(checkpoint, {name: value.cpu().contiguous() for name, value in state.items()})
