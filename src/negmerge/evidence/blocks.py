"""A model as a chain of blocks whose outputs can be recorded, and replaced by those of another model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.tasks.task import RowLosses, Task

States = Mapping[str, Any]  # the output of each block on one batch


def chain_of(task: Task, model: nn.Module, rows: Tensor, device: str) -> list[str]:
    """Return the names of the blocks of a model, in the order in which they are called.

    Candidates are the model's children; a Sequential, a ModuleList and whatever holds a ModuleList is taken apart.
    Those count that are called once, whose output is a tensor or a tuple that starts with one, and that are the last
    before the next candidate that holds a matrix. The last candidate with a matrix gives the answer: it and what
    follows it are left out.
    """
    order, weighted = _called(task, model, rows, device)
    seen = False
    found = []
    for i, name in enumerate(order[:-1]):
        seen = seen or weighted[i]
        if seen and weighted[i + 1]:
            found.append(name)
    return found


def answering(task: Task, model: nn.Module, rows: Tensor, device: str) -> str:
    """Return the name of the last block of a model that holds a matrix: its output is the answer, '' the model."""
    order, weighted = _called(task, model, rows, device)
    return next((name for name, held in zip(reversed(order), reversed(weighted), strict=True) if held), "")


def _called(task: Task, model: nn.Module, rows: Tensor, device: str) -> tuple[list[str], list[bool]]:
    """Return the names of candidates that are called once, in the order of the calls, and which hold a matrix."""
    called: list[str] = []
    candidates = dict(_candidates(model))

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: called.append(name) if _tensor(output) is not None else None

    with ExitStack() as hooks, torch.inference_mode():
        for name, module in candidates.items():
            hooks.callback(module.register_forward_hook(note(name)).remove)
        task.run_model(model, task.batch(rows, device))
    order = [name for name in called if called.count(name) == 1]
    return order, [any(p.dim() >= 2 for p in candidates[name].parameters()) for name in order]


def recorded(task: Task, model: nn.Module, batch: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the output of each block on a batch."""
    states: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            states[name] = _copy(output)  # what follows may write into it

        return hook

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(model.get_submodule(name).register_forward_hook(keep(name)).remove)
        _losses(task, model, batch)
    return states


def patched(task: Task, model: nn.Module, batch: Any, states: States) -> Tensor:
    """Return Δ of each row and block, float64 [b, blocks]: its loss with that output replaced, less its own."""
    plain = _losses(task, model, batch)
    columns = []
    for name, state in states.items():
        handle = model.get_submodule(name).register_forward_hook(lambda *_, state=state: _copy(state))
        try:
            columns.append(_losses(task, model, batch) - plain)
        finally:
            handle.remove()
    return torch.stack(columns, 1)


def _losses(task: Task, model: nn.Module, batch: Any) -> Tensor:
    assert isinstance(task, RowLosses)
    with torch.inference_mode():
        return task.losses(model, batch).double().cpu()


def _candidates(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        apart = isinstance(child, nn.Sequential) or any(isinstance(m, nn.ModuleList) for m in child.modules())
        if apart:
            yield from _candidates(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _tensor(output: Any) -> Tensor | None:
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) else None


def _copy(output: Any) -> Any:
    return (output[0].clone(), *output[1:]) if isinstance(output, tuple) else output.clone()
