"""The whole way in memory: any module, the user's own data sets, loss and evaluation."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from negmerge.checkpoints import hash_file, write_bytes_atomic, write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import PoolConfig, SelectionConfig
from negmerge.experiment.datasets import classifier_scores, move, own_scores
from negmerge.experiment.methods import check_settings
from negmerge.merging.engine import merge_vector
from negmerge.merging.merger import draws
from negmerge.seeding import derive_seed
from negmerge.selection import Selection, choose_alpha
from negmerge.selection.negated_model import NegatedModel
from negmerge.training import fit
from negmerge.training.pool import Member, expand_grid

DEFAULT_POOL: dict[str, Any] = {
    "train": {"optimizer": "adamw", "batch_size": 32},
    "grid": {"lr": [1e-4, 3e-4, 1e-3], "epochs": [4, 8, 12]},
}


@dataclass(frozen=True)
class Unlearned:
    """What `unlearn` returns: the model (a new one), the chosen α with its curve, and the share of kept elements."""

    model: nn.Module
    selection: Selection
    consensus: float
    members: tuple[str, ...]

    @property
    def alpha(self) -> float:
        """The chosen scale of the negation."""
        return self.selection.alpha


def unlearn(
    model: nn.Module,
    forget: Dataset[Any],
    retain: Dataset[Any] | None = None,
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    validation: Dataset[Any] | None = None,
    reference: nn.Module | None = None,
    pool: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    directory: Path | str | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Unlearned:
    """Make a copy of `model` forget the data set `forget`.

    A pool is fine-tuned from the model on `forget` alone, one member for each combination of `pool["grid"]` over
    `pool["train"]` (settings as in a config; augmentation and label smoothing are the data set's and the loss's own
    affair and are refused). The members are merged by `method`, α is chosen with `selection` (objective, floor, search,
    step, max_alpha), and θ₀ − α·τ is returned in a new module on the device of `model`; `model` keeps its weights.

    A batch is what a DataLoader makes of the data set. `forward(model, batch)` returns outputs (default:
    `model(batch[0])`) and `loss(outputs, batch)` a scalar (default: cross-entropy with `batch[1]`).
    `evaluate(model)` returns at least `forget` and `retain` in percent, and whatever else should stand in the curve; by
    default both are accuracies, `retain` on the data set of that name.

    The objective match-holdout also needs `validation`, a data set of rows that the model has not seen, or an
    `evaluate` that returns `holdout`. match-reference needs `reference`, a module that never saw the forget rows, and
    `validation` for the average gap, or an `evaluate`: its scores are then compared, each as much as the others.

    The members are trained one after the other in this process; with `directory` they are kept there, and the same
    call again takes them over.

    Raises InputError for wrong settings, an empty `forget`, neither `retain` nor `evaluate`, and an
    objective that lacks its data set or reference.

    >>> from torch.utils.data import TensorDataset
    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long()
    >>> data = TensorDataset(x, y)
    >>> done = unlearn(nn.Linear(4, 2), data, data, pool={"grid": {"lr": [1e-3, 1e-2], "epochs": [1]}})
    >>> len(done.members)
    2

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583).
    """
    if retain is None and evaluate is None:
        raise InputError("unlearn: give retain (a data set) or evaluate (a function), so that α can be chosen")
    if isinstance(forget, Sized) and len(forget) == 0:
        raise InputError("unlearn: the forget set is empty; give at least one row")
    forward = forward or _forward
    loss = loss or _cross_entropy
    rule = _checked(SelectionConfig, selection or {}, "selection")
    made = _checked(PoolConfig, pool or DEFAULT_POOL, "pool")
    members = expand_grid(made.train, made.grid)
    for member in members:
        if member.settings.augment != "none" or member.settings.label_smoothing:
            raise InputError("unlearn: augment and label_smoothing belong into your data set and loss; leave them out")
    check_settings(method, settings or {})
    sets = {"forget": forget, "retain": retain, "validation": validation}
    measure = (
        own_scores(evaluate, rule.objective, reference)
        if evaluate
        else classifier_scores(model, sets, forward, rule.objective, reference, seed)
    )

    def emit(event: str, **facts: Any) -> None:
        if on_event:
            on_event({"event": event, **facts})

    with ExitStack() as stack:
        folder = Path(directory) if directory else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        base = folder / "base.safetensors"
        write_state_dict(base, _on_cpu(model))
        origin = hash_file(base)
        trained = []
        for i, member in enumerate(members):
            trained.append(_train_member(folder, i, member, model, origin, forget, forward, loss, seed))
            emit("trained", name=member.name)
        vector = folder / "vector.safetensors"
        drawn = seed if draws(method) else 0
        report = merge_vector(base, trained, vector, method=method, settings=dict(settings or {}), seed=drawn)
        result = _copy(model)
        negated = NegatedModel(result, vector)

        @torch.no_grad()
        def at(alpha: float) -> Mapping[str, float]:
            scores = measure(negated.set_alpha(alpha).eval())
            emit("evaluated", alpha=alpha, **scores)
            return scores

        chosen = choose_alpha(
            at, rule.objective, floor=rule.floor_share, search=rule.search, step=rule.step, max_alpha=rule.max_alpha
        )
        negated.set_alpha(chosen.alpha)
    return Unlearned(result, chosen, report.consensus, tuple(member.name for member in members))


def _train_member(
    folder: Path,
    index: int,
    member: Member,
    model: nn.Module,
    origin: str,
    data: Dataset[Any],
    forward: Callable[[nn.Module, Any], Any],
    loss: Callable[[Any, Any], Tensor],
    seed: int,
) -> Path:
    """Train one member, unless it is there from the same weights with the same settings, and return its checkpoint."""
    checkpoint = folder / f"{member.name}.safetensors"
    facts_file = folder / f"{member.name}.json"
    facts = json.dumps({"base": origin, "seed": seed, "settings": member.settings.model_dump(mode="json")})
    if facts_file.exists() and facts_file.read_text() == facts:
        return checkpoint
    size = member.settings.batch_size
    device = next(model.parameters()).device
    steps = max(1, len(DataLoader(data, batch_size=size)))

    def batches(epoch: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(derive_seed(seed, member.settings.seed, index, epoch))
        for batch in DataLoader(data, batch_size=size, shuffle=True, generator=generator):
            yield move(batch, device)

    tuned = _copy(model)
    with torch.random.fork_rng(devices=[]):  # dropout and the like draw from the global generator
        torch.manual_seed(derive_seed(seed, member.settings.seed, index))
        fit(tuned, batches, lambda m, b: loss(forward(m, b), b), member.settings, steps_per_epoch=steps)
    write_state_dict(checkpoint, _on_cpu(tuned))
    write_bytes_atomic(facts_file, facts.encode())
    return checkpoint


def _forward(model: nn.Module, batch: Any) -> Any:
    return model(batch[0])


def _cross_entropy(outputs: Any, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(outputs, batch[1])


def _checked(schema: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return TypeAdapter(schema).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise InputError(f"unlearn: {place}: {first['msg']}, got {first['input']!r}") from None


def _copy(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
