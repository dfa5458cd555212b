"""Merging checkpoints: in one streamed pass from files to a file, or in memory."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import BY_NAME, DType, Raw, convert, exact, is_finite, to_floats
from negmerge.checkpoints.memory import StateDict
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet, apply_delta, check_alpha
from negmerge.merging.arguments import as_path, as_paths, check_state_dicts
from negmerge.merging.merger import Merger
from negmerge.merging.output.folder import check_output, is_file_output, recover_folder, written_folder
from negmerge.merging.output.record import merge_facts, metadata, model_card
from negmerge.merging.output.reports import MergeReport, OnEvent, VectorReport, merge_report, telling
from negmerge.merging.output.weights import WeightsWriter, parse_size, weights_file, weights_folder
from negmerge.merging.passes.merging import bytes_to_read, merge_pool
from negmerge.merging.passes.streaming import CHUNK, TensorCount
from negmerge.merging.pool import fit_pool, open_pool

__all__ = ["MergeReport", "VectorReport", "apply_delta", "merge_checkpoints", "merge_state_dicts", "merge_vector"]

DTYPES = ("float32", "float16", "bfloat16", "float64")


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
    through from the base. Only chunks are in memory, never a model. OUT ending in .safetensors is one file, anything
    else a folder with the base's config and tokenizer files, its weights in shards of at most `max_shard_size` (5GB);
    it appears whole or not at all, and the same inputs give the same bytes.

    Raises InputError, with nothing written, for whatever is wrong with the inputs, the settings or OUT.

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583).
    """
    started = time.perf_counter()
    base, output, paths = as_path(base, "base"), as_path(output, "output"), as_paths(members)
    check_alpha(alpha)
    target = _target_dtype(dtype)
    merger = Merger(method, settings or {}, seed)
    if is_file_output(output) and max_shard_size is not None:
        raise InputError(f"OUT {output} is one file, which has no shards; give a folder, or leave --max-shard-size out")
    most = parse_size(max_shard_size or "5GB")
    recover_folder(output)
    check_output(output, [base, *paths], overwrite)
    with open_pool(base, paths, include, exclude) as pool:
        merger = merger.fitted(pool.merged, pool.order, pool.tied)
        facts = merge_facts(pool, merger, add=add, alpha=alpha, include=include, exclude=exclude, hashed=hash_inputs)

        def out_dtype(name: str) -> DType:
            own = pool.base.dtype(name)
            return target if target is not None and own.is_floating_point else own

        layout = [(name, out_dtype(name), pool.base.shape(name)) for name in pool.base.names]
        total = bytes_to_read(pool, merger, device)
        warnings: list[str] = []

        def write(weights: AbstractContextManager[WeightsWriter]) -> list[TensorCount]:
            with weights as writer:
                outlet = Outlet("add" if add else "subtract", out_dtype, pool.under_all_names(writer.write), alpha)
                for name in pool.passed:
                    warnings.extend(_pass_through(pool.base, name, out_dtype(name), writer))
                return merge_pool(pool, merger, outlet, workers, device, telling(on_event, total))

        if is_file_output(output):
            counts = write(weights_file(output, layout, metadata(facts), replace=overwrite))
        else:
            source, card = _folder_of(pool.base), model_card(facts)
            with written_folder(output, source, card, overwrite, pool.config_changes) as folder:
                counts = write(weights_folder(folder, layout, metadata(facts), most))
        return merge_report(pool, counts, output, method, alpha, started, total, warnings)


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
    merger = Merger(method, settings or {}, seed)
    with open_pool(as_path(base, "base"), as_paths(members), include, exclude) as pool:

        def wide(name: str) -> DType:
            return exact(pool.base.dtype(name))

        layout = [(name, wide(name), pool.base.shape(name)) for name in (*pool.merged, *pool.tied)]
        with weights_file(Path(output), layout, {}) as writer:
            outlet = Outlet("delta", wide, pool.under_all_names(writer.write))
            counts = merge_pool(pool, merger.fitted(pool.merged, pool.order, pool.tied), outlet, workers, device)
    return VectorReport(tuple(counts))


def merge_state_dicts(
    base: Mapping[str, Tensor],
    members: Sequence[Mapping[str, Tensor]],
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    alpha: float = 1.0,
    add: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Merge state dicts in memory and return θ₀ − α·τ as a new state dict; the arguments stay as they are.

    The numbers are those of `merge_checkpoints`, the members summed in the order given. Raises InputError likewise.

    >>> base, a, b = ({"w": torch.tensor(values)} for values in ([0.0, 0.0], [1.0, 1.0], [3.0, -1.0]))
    >>> merge_state_dicts(base, [a, b])["w"]
    tensor([-2.,  0.])
    """
    check_state_dicts(base, members)
    check_alpha(alpha)
    merger = Merger(method, settings or {}, seed)
    opened = [StateDict(member, Path(f"members[{i}]")) for i, member in enumerate(members)]
    pool = fit_pool(StateDict(base, Path("base")), opened, include, exclude)
    result = {name: tensor.detach().clone() for name, tensor in base.items()}
    flat = {name: torch.empty(base[name].numel(), dtype=base[name].dtype) for name in (*pool.merged, *pool.tied)}

    def keep(name: str, start: int, values: Raw) -> None:
        flat[name][start : start + len(values)] = torch.from_numpy(values).view(flat[name].dtype)

    outlet = Outlet("add" if add else "subtract", pool.base.dtype, pool.under_all_names(keep), alpha)
    merge_pool(pool, merger.fitted(pool.merged, pool.order, pool.tied), outlet)
    for name, values in flat.items():
        result[name] = values.reshape(base[name].shape).to(base[name].device)
    return result


def _folder_of(base: Checkpoint) -> Path | None:
    """Return the folder whose config and tokenizer belong to the base; a base that is one file has none."""
    return None if base.path.is_file() else base.files[0].parent


def _pass_through(base: Checkpoint, name: str, dtype: DType, writer: WeightsWriter) -> list[str]:
    """Write a tensor of the base as it is, cast where OUT has another dtype, and return a warning of NaN or Inf in it.

    Raises InputError where the cast makes a finite value infinite.
    """
    odd = False
    own, total = base.dtype(name), elements(base.shape(name))
    for start in range(0, total, CHUNK):
        values = base.raw(name, start, min(start + CHUNK, total))
        cast = convert(values, own, dtype)
        if own.is_floating_point:
            finite = np.isfinite(to_floats(values, own))
            odd = odd or not finite.all()
            if dtype != own and not is_finite(cast[finite], dtype):
                raise InputError(f"{base.path}: tensor {name} leaves the range of {dtype}; choose another --dtype")
        writer.write(name, start, cast)
    return [f"{base.path}: tensor {name} holds NaN or Inf and passes through as it is"] if odd else []


def _target_dtype(dtype: str) -> DType | None:
    if dtype != "base" and dtype not in DTYPES:
        raise InputError(f"dtype must be base or one of {', '.join(DTYPES)}, got {dtype!r}")
    return BY_NAME.get(dtype)
