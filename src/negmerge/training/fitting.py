"""Training a task's model on some of its rows, through the one loop."""

from collections.abc import Callable

from torch import Tensor, nn

from negmerge.seeding import derive_seed
from negmerge.tasks.task import Task
from negmerge.training.loop import Epoch, fit
from negmerge.training.settings import TrainSettings


def fit_rows(
    task: Task,
    model: nn.Module,
    rows: Tensor,
    settings: TrainSettings,
    *,
    seed: int,
    start: Epoch | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> float:
    """Train `model` in place with the task's loss on `rows`, int64 [n]; return the mean loss of its last epoch.

    The seed of the batches is derived from `seed` and the settings' own. Raises NegmergeError where training diverges.
    """
    device = next(model.parameters()).device
    batches = task.batches(rows, settings, derive_seed(seed, settings.seed), device)

    def loss(module: nn.Module, batch: object) -> Tensor:
        return task.loss(module, batch, settings)

    return fit(model, batches, loss, settings, steps_per_epoch=batches.steps, start=start, on_epoch=on_epoch)
