"""Merging checkpoints: in one streamed pass from files to a file, or in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negmerge.checkpoints.dtypes import DType, Raw, exact
from negmerge.checkpoints.memory import StateDict
from negmerge.merging.applying import Outlet
from negmerge.merging.arguments import check_state_dicts
from negmerge.merging.buffers import Policy, least_values
from negmerge.merging.output.reports import MergeReport, OnEvent, VectorReport
from negmerge.merging.output.weights import FilePlan, written_weights
from negmerge.merging.passes.executing import execute
from negmerge.merging.plan import plan_merge
from negmerge.merging.pool.fitting import fit_pool
from negmerge.merging.pool.opening import open_terms, term_files
from negmerge.merging.request import check_request
from negmerge.merging.term import Term
from negmerge.merging.writing import MergeRequest, TermRequest, plan_terms, write_merge

if TYPE_CHECKING:
    from torch import Tensor

    from negmerge.merging.layer_change import LayerChange


def merge_checkpoints(
    base: Path | str,
    members: Sequence[Path | str],
    output: Path | str,
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    alpha: float = 1.0,
    add: bool = False,
    origin: Path | str | None = None,
    weights: Path | str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffers: Policy = "keep",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "base",
    workers: int | None = None,
    max_shard_size: str | None = None,
    hash_inputs: bool = True,
    overwrite: bool = False,
    projection: "LayerChange | None" = None,
    on_event: OnEvent | None = None,
) -> MergeReport:
    """Merge the task vectors of checkpoints and write θ₀ − α·w⊙τ (θ₀ + α·w⊙τ with `add`).

    τᵢ = θᵢ − θ₀ in float32 (float64 for float64 weights), or θᵢ − `origin` for members of another model; τ = method(τ₁
    … τ_N), members in the order of their resolved paths; the result is cast once to the dtype of θ₀, or to `dtype`.
    `weights` is a checkpoint with the base's names whose tensors w ≥ 0 multiply τ; without it w is 1. Integers,
    booleans and batch-norm statistics pass through from the base; with `buffers` "negate" the statistics merge too,
    and variances are held at 1e-5 or above. Only chunks are in memory, never a model. OUT ending in .safetensors is one
    file, a name without an ending a folder with whatever of the base's belongs to loading it, a config.json that says
    the dtype, and the weights in shards of at most `max_shard_size` (5GB); it appears whole or not at all, and the same
    inputs give the same bytes. The report names what of the base's folder was left behind. `projection`, a
    `negmerge.projection.Projection`, changes τ layer by layer before it is applied.

    Raises InputError, with nothing written, for whatever is wrong with the inputs, the settings or OUT.

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583).
    """
    merger = check_request(
        method,
        settings,
        base=base,
        members=members,
        output=output,
        alpha=alpha,
        add=add,
        origin=origin,
        weights=weights,
        include=include,
        exclude=exclude,
        buffers=buffers,
        seed=seed,
        device=device,
        dtype=dtype,
        workers=workers,
        max_shard_size=max_shard_size,
        hash_inputs=hash_inputs,
        overwrite=overwrite,
    )
    return write_merge(
        MergeRequest(
            Path(base),
            [TermRequest(term_files(members, origin, weights), merger, float(alpha), add, change=projection)],
            Path(output),
            include,
            exclude,
            buffers,
            device,
            dtype,
            workers,
            max_shard_size,
            hash_inputs,
            overwrite,
            on_event,
        )
    )


def merge_vector(
    base: Path | str,
    members: Sequence[Path | str],
    output: Path | str,
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    origin: Path | str | None = None,
    weights: Path | str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffers: Policy = "keep",
    seed: int = 0,
    workers: int | None = None,
    device: str = "cpu",
) -> VectorReport:
    """Merge the task vectors of checkpoints and write w⊙τ itself, in the dtype of the arithmetic; OUT is replaced.

    Task vectors are those of `origin` where it is given, and w is 1 without `weights`. Only merged names are in the
    file, with `buffers` "negate" running statistics among them. Raises InputError as `merge_checkpoints` does.
    """
    merger = check_request(
        method,
        settings,
        base=base,
        members=members,
        output=output,
        origin=origin,
        weights=weights,
        include=include,
        exclude=exclude,
        buffers=buffers,
        seed=seed,
        workers=workers,
        device=device,
    )
    files = term_files(members, origin, weights)
    with open_terms(Path(base), [files], include, exclude, buffers) as opened:
        plan = plan_terms(opened, [TermRequest(files, merger)], device)

        def wide(name: str) -> DType:
            return exact(plan.base.dtype(name))

        layout = [(name, wide(name), plan.base.shape(name)) for name in (*plan.merged, *plan.tied)]
        with written_weights([FilePlan(Path(output), layout)], {}) as writer:
            merged = execute(plan, Outlet(wide, plan.under_all_names(writer.write), vector=True), workers=workers)
    return VectorReport(merged.counts[0])


def merge_state_dicts(
    base: "Mapping[str, Tensor]",
    members: "Sequence[Mapping[str, Tensor]]",
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    alpha: float = 1.0,
    add: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffers: Policy = "keep",
    seed: int = 0,
) -> "dict[str, Tensor]":
    """Merge state dicts in memory and return θ₀ − α·τ as a new state dict; the arguments stay as they are.

    The numbers are those of `merge_checkpoints`, the members summed in the order given. Raises InputError likewise.

    >>> import torch
    >>> base, a, b = ({"w": torch.tensor(values)} for values in ([0.0, 0.0], [1.0, 1.0], [3.0, -1.0]))
    >>> merge_state_dicts(base, [a, b])["w"]
    tensor([-2.,  0.])
    """
    import torch

    merger = check_request(
        method, settings, alpha=alpha, add=add, include=include, exclude=exclude, buffers=buffers, seed=seed
    )
    check_state_dicts(base, members)
    opened = [StateDict(member, Path(f"members[{i}]")) for i, member in enumerate(members)]
    pool = fit_pool(StateDict(base, Path("base")), opened, include, exclude, buffers)
    plan = plan_merge(pool.base, [Term(pool, merger.fitted(pool.merged, pool.order, pool.tied), alpha, add)])
    result = {name: tensor.detach().clone() for name, tensor in base.items()}
    flat = {name: torch.empty(base[name].numel(), dtype=base[name].dtype) for name in (*plan.merged, *plan.tied)}

    def keep(name: str, start: int, values: Raw) -> None:
        flat[name][start : start + len(values)] = torch.from_numpy(values).view(flat[name].dtype)

    least = least_values(plan.merged)
    execute(plan, Outlet(pool.base.dtype, plan.under_all_names(keep), at_least=least, alpha=alpha))
    for name, values in flat.items():
        result[name] = values.reshape(base[name].shape).to(base[name].device)
    return result
