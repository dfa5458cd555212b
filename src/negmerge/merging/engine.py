"""Merging checkpoints: in one streamed pass from files to a file, or in memory."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import BY_NAME, DType, Raw, convert, exact, is_finite, to_floats
from negmerge.checkpoints.memory import StateDict
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet
from negmerge.merging.arguments import check_state_dicts
from negmerge.merging.hashes import InputHashes
from negmerge.merging.output.beside import Beside, plan_beside
from negmerge.merging.output.folder import check_output, is_file_output, recover_folder
from negmerge.merging.output.model import OutputPlan, write_file, write_folder
from negmerge.merging.output.model_config import key_paths
from negmerge.merging.output.record import Places, merge_facts
from negmerge.merging.output.reports import MergeReport, OnEvent, VectorReport, byte_counter, merge_report
from negmerge.merging.output.weights import FilePlan, WeightsWriter, parse_size, written_weights
from negmerge.merging.passes.executing import execute
from negmerge.merging.passes.plain import CHUNK
from negmerge.merging.plan import Term, plan_merge
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.fitting import fit_pool
from negmerge.merging.pool.opening import open_pool
from negmerge.merging.request import check_request
from negmerge.merging.tally import Merged

if TYPE_CHECKING:
    from torch import Tensor


def merge_checkpoints(
    base: Path | str,
    members: Sequence[Path | str],
    output: Path | str,
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    alpha: float = 1.0,
    add: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "base",
    workers: int | None = None,
    max_shard_size: str | None = None,
    hash_inputs: bool = True,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> MergeReport:
    """Merge the task vectors of checkpoints and write θ₀ − α·τ (θ₀ + α·τ with `add`).

    τᵢ = θᵢ − θ₀ in float32 (float64 for float64 weights); τ = method(τ₁ … τ_N), members in the order of their resolved
    paths; the result is cast once to the dtype of θ₀, or to `dtype`. Integers, booleans and batch-norm statistics pass
    through from the base. Only chunks are in memory, never a model. OUT ending in .safetensors is one file, a name
    without an ending a folder with whatever of the base's belongs to loading it, a config.json that says the dtype, and
    the weights in shards of at most `max_shard_size` (5GB); it appears whole or not at all, and the same inputs give
    the same bytes. The report names what of the base's folder was left behind.

    Raises InputError, with nothing written, for whatever is wrong with the inputs, the settings or OUT.

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583).
    """
    started = time.perf_counter()
    merger = check_request(
        method,
        settings,
        base=base,
        members=members,
        output=output,
        alpha=alpha,
        add=add,
        include=include,
        exclude=exclude,
        seed=seed,
        device=device,
        dtype=dtype,
        workers=workers,
        max_shard_size=max_shard_size,
        hash_inputs=hash_inputs,
        overwrite=overwrite,
    )
    base, output, alpha = Path(base), Path(output), float(alpha)
    paths = [Path(member) for member in members]
    target = BY_NAME.get(dtype)
    most = _shard_size(output, max_shard_size)
    recover_folder(output)
    check_output(output, [base, *paths], overwrite)
    with open_pool(base, paths, include, exclude) as pool:
        term = Term(pool, merger.fitted(pool.merged, pool.order, pool.tied), alpha, add)
        beside = None if is_file_output(output) else beside_of(pool, dtype)
        plan = plan_merge(pool.base, [term], device)
        hashes = InputHashes((pool.base, *pool.members)) if hash_inputs else InputHashes()
        total = plan.bytes_to_read
        places = Places()
        facts = merge_facts(plan, include, exclude, hash_inputs, hashes, places)

        warnings: list[str] = []

        def of_out(name: str) -> DType:
            return out_dtype(plan.base, name, target)

        def write(weights: WeightsWriter) -> Merged:
            for name in plan.passed:
                warnings.extend(pass_through(plan.base, name, of_out(name), weights, hashes))
            outlet = Outlet(of_out, plan.under_all_names(weights.write), alpha=alpha)
            return execute(plan, outlet, workers=workers, on_bytes=byte_counter(on_event, total), hashes=hashes)

        layout = [(name, of_out(name), plan.base.shape(name)) for name in plan.base.names]
        out = OutputPlan(output, layout, facts, places, most, overwrite, beside)
        merged = write_file(out, write) if is_file_output(output) else write_folder(out, write)
        dtypes = [of_out(name) for name in plan.merged]
        return merge_report(plan, merged, output, started, total, beside, warnings, dtypes)


def merge_vector(
    base: Path | str,
    members: Sequence[Path | str],
    output: Path | str,
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    workers: int | None = None,
    device: str = "cpu",
) -> VectorReport:
    """Merge the task vectors of checkpoints and write τ itself, in the dtype of the arithmetic; OUT is replaced.

    Only merged names are in the file. Raises InputError as `merge_checkpoints` does.
    """
    merger = check_request(
        method,
        settings,
        base=base,
        members=members,
        output=output,
        include=include,
        exclude=exclude,
        seed=seed,
        workers=workers,
        device=device,
    )
    with open_pool(Path(base), [Path(member) for member in members], include, exclude) as pool:
        plan = plan_merge(pool.base, [Term(pool, merger.fitted(pool.merged, pool.order, pool.tied))], device)

        def wide(name: str) -> DType:
            return exact(pool.base.dtype(name))

        layout = [(name, wide(name), pool.base.shape(name)) for name in (*plan.merged, *plan.tied)]
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

    merger = check_request(method, settings, alpha=alpha, add=add, include=include, exclude=exclude, seed=seed)
    check_state_dicts(base, members)
    opened = [StateDict(member, Path(f"members[{i}]")) for i, member in enumerate(members)]
    pool = fit_pool(StateDict(base, Path("base")), opened, include, exclude)
    plan = plan_merge(pool.base, [Term(pool, merger.fitted(pool.merged, pool.order, pool.tied), alpha, add)])
    result = {name: tensor.detach().clone() for name, tensor in base.items()}
    flat = {name: torch.empty(base[name].numel(), dtype=base[name].dtype) for name in (*plan.merged, *plan.tied)}

    def keep(name: str, start: int, values: Raw) -> None:
        flat[name][start : start + len(values)] = torch.from_numpy(values).view(flat[name].dtype)

    execute(plan, Outlet(pool.base.dtype, plan.under_all_names(keep), alpha=alpha))
    for name, values in flat.items():
        result[name] = values.reshape(base[name].shape).to(base[name].device)
    return result


def pass_through(base: Checkpoint, name: str, dtype: DType, writer: WeightsWriter, hashes: InputHashes) -> list[str]:
    """Write a tensor of the base as it is, cast where OUT has another dtype, and return a warning of NaN or Inf in it.

    Raises InputError where the cast makes a finite value infinite.
    """
    odd = False
    own, total = base.dtype(name), elements(base.shape(name))
    for start in range(0, total, CHUNK):
        values = hashes.read(base, name, start, min(start + CHUNK, total))
        cast = convert(values, own, dtype)
        if own.is_floating_point:
            finite = np.isfinite(to_floats(values, own))
            odd = odd or not finite.all()
            if dtype != own and not is_finite(cast[finite], dtype):
                raise InputError(f"{base.path}: tensor {name} leaves the range of {dtype}; choose another --dtype")
        writer.write(name, start, cast)
    return [f"{base.path}: tensor {name} holds NaN or Inf and passes through as it is"] if odd else []


def out_dtype(base: Checkpoint, name: str, target: DType | None) -> DType:
    """Return the dtype of a tensor in OUT: that of the base, or of floats the one that is asked for."""
    own = base.dtype(name)
    return target if target is not None and own.is_floating_point else own


def beside_of(pool: Pool, dtype: str) -> Beside | None:
    """Return what goes from the base's folder into OUT; a base that is one file has no folder of its own."""
    base = pool.base
    if base.path.is_file():
        return None
    changes = key_paths(pool.config_changes)
    return plan_beside(base.files[0].parent, base.files, None if dtype == "base" else dtype, changes)


def _shard_size(output: Path, text: str | None) -> int:
    if is_file_output(output) and text is not None:
        raise InputError(f"OUT {output} is one file, which has no shards; give a folder, or leave --max-shard-size out")
    return parse_size(text or "5GB")
