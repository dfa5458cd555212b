"""RMU: steer what a block says of the forget rows to a random direction, and hold what it says of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.errors import InputError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Layers, Task, need
from negmerge.unlearning.context import Context, Outcome, TrainingData
from negmerge.unlearning.fitting import AdamSettings
from negmerge.unlearning.method import Passes
from negmerge.unlearning.pairing import fit_paired, paired_passes

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "steer the states of one block on forget rows to a random vector, and hold those on retain rows"
REFERENCE = "Li et al., The WMDP Benchmark, ICML 2024 (arXiv 2403.03218)"
REQUIRES = (Layers,)
SEARCH = {"lr": (1e-5, 3e-5, 1e-4)}
TRAINED = 3  # blocks whose matrices are trained: the steered one and those before it


class Settings(AdamSettings):
    """How to train, and where; the learning rate is searched unless given."""

    layer: int | None = Field(
        None, ge=0, description="the block that is steered, from 0; a quarter of the way if unset"
    )
    steering: float = Field(
        2.0, gt=0, description="c: the length of the vector, as a multiple of the base's mean length on the batch"
    )


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through model and base, counted as if they did not end at the steered block."""
    return paired_passes(settings, rows, frozen="both")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise mean ‖h_f − c·u‖² / d + λ · mean ‖h_r − h_r⁰‖² / d over tokens, from the base.

    h are the states of d numbers that one block hands on of each token, padding left out, h⁰ those of the base, u a
    unit vector with numbers drawn uniformly from 0 to 1, c `steering` times the mean length of h_f⁰ (the published c is
    a number that has to be found anew for each model). Only the matrices of that block and of the two before it are
    trained.

    Raises InputError for a block that the model does not have, NegmergeError where training diverges.

    Source: arXiv 2403.03218, section 4.2; the length by the base's: arXiv 2408.06223.
    """
    import torch
    from torch.nn import functional

    def make(data: TrainingData) -> Any:
        task = data.task
        layered = need(task, Layers, "rmu")
        frozen, model = (task.open(context.base, data.device).requires_grad_(False) for _ in range(2))
        blocks = layered.layers(model)
        place = len(blocks) // 4 if settings.layer is None else settings.layer
        if place >= len(blocks):
            raise InputError(f"method rmu: layer: the model has blocks 0 to {len(blocks) - 1}, not {place}")
        for block in blocks[max(0, place + 1 - TRAINED) : place + 1]:
            for parameter in block.parameters():
                parameter.requires_grad_(parameter.dim() >= 2)
        fixed, seed = layered.layers(frozen)[place], derive_seed(data.seed, "steering")

        def forget_loss(module: nn.Module, batch: Any, _: object) -> Tensor:
            with torch.no_grad():
                before = states_of(task, frozen, fixed, batch)
            now = states_of(task, module, blocks[place], batch)
            drawn = torch.rand(now.shape[-1], generator=torch.Generator().manual_seed(seed)).to(now)
            length = settings.steering * before.norm(dim=-1).mean()
            return functional.mse_loss(now, (length * drawn / drawn.norm()).expand_as(now))

        def retain_loss(module: nn.Module, batch: Any) -> Tensor:
            with torch.no_grad():
                before = states_of(task, frozen, fixed, batch)
            return functional.mse_loss(states_of(task, module, blocks[place], batch), before)

        return forget_loss, retain_loss, model

    return fit_paired(context, settings, make)


class _ReachedError(Exception):
    """The states are there; what follows in the model is not needed."""


def states_of(task: Task, model: nn.Module, block: nn.Module, batch: Any) -> Tensor:
    """Return what a block hands on, float32 [tokens, d], of the tokens of a batch that are not padding."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _ReachedError

    handle = block.register_forward_hook(keep)
    try:
        task.run_model(model, batch)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    real = task.real_tokens(batch)
    states = found[0].float()
    return states.flatten(0, -2) if real is None else states[real.to(states.device)]
