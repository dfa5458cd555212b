"""The span of a pool: θ₀ − Σ c·τ with a coefficient for each member and tensor, differentiable in c."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negmerge.checkpoints import open_checkpoint, read_state_dict
from negmerge.errors import InputError
from negmerge.merging.pool.selecting import Patterns
from negmerge.tasks.task import RowOutputs, Task, need
from negmerge.training.running_statistics import statistics_layers
from negmerge.unlearning.layer_groups import layer_groups

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

UNITS = ("member", "layer", "tensor")


class Span:
    """The task vectors of a pool in memory, and the model that coefficients make of them.

    `coefficients` is float32 [N, U], zeros at first: U is 1 by "member", the number of groups of `layer_groups` (up to
    12 runs of blocks) by "layer", that of merged tensors by "tensor"; `units` names them. Trained parameters merge
    that `include` and `exclude` leave; running statistics do not. With `own_statistics` batch-norm layers use those of
    the batch, as they would after being estimated again, else the base's.
    """

    def __init__(
        self,
        task: Task,
        base: Path,
        members: Sequence[Path],
        device: str,
        *,
        by: str = "tensor",
        own_statistics: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        import torch

        if by not in UNITS:
            raise InputError(f"coefficients go by {', '.join(UNITS[:-1])} or {UNITS[-1]}, got {by!r}")
        self._task, self.device = need(task, RowOutputs, "learning coefficients"), device
        self.model = task.open(base, device).requires_grad_(False)
        opened, wanted = open_checkpoint(base), Patterns(include, exclude)
        self.base = {
            name: value.detach()
            for name, value in self.model.named_parameters()
            if wanted.can_merge(opened, name) and wanted.wanted(name)
        }
        if not self.base:
            raise InputError("learning coefficients: no parameter merges; change include or exclude")
        self.deltas: dict[str, Tensor] = {}
        states = [read_state_dict(member) for member in members]
        for name, origin in self.base.items():
            changes = [state[name].to(device, torch.float32).reshape(origin.shape) - origin.float() for state in states]
            self.deltas[name] = torch.stack(changes)
        self.units, self._unit_of = self._grouped(by)
        self.coefficients = torch.zeros(len(members), len(self.units), device=device)
        self._layers = statistics_layers(self.model) if own_statistics else []

    def _grouped(self, by: str) -> tuple[list[str], dict[str, int]]:
        if by == "layer":
            groups = layer_groups({name: tuple(value.shape) for name, value in self.base.items()}, 12)
            return list(groups), {name: i for i, names in enumerate(groups.values()) for name in names}
        if by == "member":
            return ["all"], dict.fromkeys(self.base, 0)
        return list(self.base), {name: i for i, name in enumerate(self.base)}

    def change(self, coefficients: Tensor) -> dict[str, Tensor]:
        """Return Σ c·τ by name, float32, with a graph."""
        import torch

        return {
            name: torch.tensordot(coefficients[:, self._unit_of[name]], delta, dims=1)
            for name, delta in self.deltas.items()
        }

    def outputs(self, coefficients: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits [b, labels] of θ₀ − Σ c·τ, with a graph, and the labels [b] of these rows."""
        import torch

        batch = self._task.batch(rows, self.device)  # type: ignore[attr-defined]
        moved = self.change(coefficients)
        weights = {f"model.{n}": origin - moved[n].to(origin.dtype) for n, origin in self.base.items()}
        with self._statistics():
            logits = torch.func.functional_call(_answering(self.model, self._task.outputs), weights, (batch,))
        return logits.float(), self._task.labels(batch).to(self.device)

    def base_outputs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `outputs` returns of θ₀ with its own running statistics, without a graph; 250 rows at a time."""
        import torch

        with torch.no_grad():
            batches = [self._task.batch(part, self.device) for part in rows.split(250)]  # type: ignore[attr-defined]
            logits = torch.cat([self._task.outputs(self.model, batch) for batch in batches])
        return logits.float(), torch.cat([self._task.labels(batch) for batch in batches]).to(self.device)

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        """Let batch-norm layers use the batch's statistics inside the block, without moving the running ones."""
        momenta = [layer.momentum for layer in self._layers]
        counters = [layer.num_batches_tracked for layer in self._layers]
        try:
            for layer in self._layers:
                layer.train()
                layer.momentum, layer.num_batches_tracked = 0.0, None
            yield
        finally:
            for layer, momentum, counter in zip(self._layers, momenta, counters, strict=True):
                layer.eval()
                layer.momentum, layer.num_batches_tracked = momentum, counter

    def minimise(
        self,
        loss: Callable[[Tensor, int], Tensor],
        *,
        start: float,
        steps: int,
        lr: float,
        tell: Callable[[int, float], None] | None = None,
    ) -> list[float]:
        """Minimise `loss(coefficients, step)` by Adam from coefficients that are all `start`; return every loss.

        What was found is in `coefficients` then: those of the last step. Raises InputError where a loss is not finite.
        """
        import torch

        free = torch.full_like(self.coefficients, start).requires_grad_(True)
        optimizer = torch.optim.Adam([free], lr=lr)
        losses: list[float] = []
        for step in range(steps):
            optimizer.zero_grad()
            found = loss(free, step)
            losses.append(float(found.detach()))
            if not torch.isfinite(found):
                raise InputError(f"learning coefficients: the loss of step {step} is {losses[-1]}; lower lr")
            found.backward()
            optimizer.step()
            if tell is not None:
                tell(step, losses[-1])
        self.coefficients = free.detach()
        return losses

    def vector(self) -> dict[str, Tensor]:
        """Return Σ c·τ for the coefficients that were found, on the CPU: a merged vector, to be negated at α = 1."""
        return {name: value.cpu().contiguous() for name, value in self.change(self.coefficients).items()}


def _answering(model: nn.Module, outputs: Callable[[nn.Module, Any], Tensor]) -> nn.Module:
    """Return a module around a model whose forward pass takes a batch of the task."""
    import torch

    class Answering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Any) -> Tensor:
            return outputs(self.model, batch)

    return Answering()


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y − max over c ≠ y of z_c for logits [b, labels] and labels int64 [b].

    >>> import torch
    >>> margins(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([1]))
    tensor([-2.])
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return own - others.amax(1)


def quantiles(values: Tensor, count: int) -> Tensor:
    """Return the values at the shares (k + ½) / count of a sorted sample, [count]; between two, linearly.

    >>> import torch
    >>> quantiles(torch.tensor([0.0, 2.0]), 2)
    tensor([0.5000, 1.5000])
    """
    import torch

    return torch.quantile(values, (torch.arange(count, device=values.device) + 0.5) / count)


def likeness_loss(
    logits: Tensor, labels: Tensor, sizes: tuple[int, int, int], goal: Tensor | None, aim: Tensor, weight: float
) -> Tensor:
    """Return w · W₁(m(forget), goal) + CE(retain) + KL(aim ‖ p)(validation) of a batch with a graph.

    The batch has forget, retain and validation rows, `sizes` of each in this order: logits [b, labels], labels [b].
    W₁ is the mean distance of the sorted `margins` to as many `quantiles` of the margins `goal`, [n]; where that is
    None, the mean of log(1 + exp m) stands in its place. `aim` are log-probabilities on the validation rows.
    """
    from torch.nn import functional

    gone, kept, unseen = logits.split(list(sizes))
    own, right = margins(gone, labels[: sizes[0]]), labels[sizes[0] : sizes[0] + sizes[1]]
    if goal is None:
        known = functional.softplus(own).mean()
    else:
        known = (own.sort().values - quantiles(goal, len(own))).abs().mean()
    apart = functional.kl_div(unseen.log_softmax(1), aim, log_target=True, reduction="batchmean")
    return weight * known + functional.cross_entropy(kept, right) + apart


def sample(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return `most` of the rows in a drawn order, all of them where there are fewer."""
    import torch

    return rows[torch.randperm(len(rows), generator=generator)[:most]]


def mean_coefficients(span: Span) -> Mapping[str, Any]:
    """Return the mean coefficient of each member and of each unit, for the record."""
    found = span.coefficients
    return {"members": found.mean(1).tolist(), "units": dict(zip(span.units, found.mean(0).tolist(), strict=True))}
