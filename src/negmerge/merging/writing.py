"""A checked merge, from its files to OUT: opened, planned, computed and written in one streamed pass."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import BY_NAME, DType, convert, is_finite, to_floats
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet
from negmerge.merging.buffers import Policy, least_values
from negmerge.merging.by_layer import AppliedByLayer
from negmerge.merging.hashes import InputHashes
from negmerge.merging.layer_change import LayerChange, Project
from negmerge.merging.merger import Merger
from negmerge.merging.output.beside import Beside, plan_beside
from negmerge.merging.output.folder import check_output, is_file_output, recover_folder
from negmerge.merging.output.kept_recipe import KeptRecipe
from negmerge.merging.output.model import OutputPlan, write_file, write_folder
from negmerge.merging.output.model_config import key_paths
from negmerge.merging.output.record import Places, merge_facts
from negmerge.merging.output.reports import MergeReport, OnEvent, byte_counter, merge_report
from negmerge.merging.output.weights import WeightsWriter, parse_size
from negmerge.merging.passes.executing import execute
from negmerge.merging.passes.plain import CHUNK
from negmerge.merging.plan import Plan, plan_merge
from negmerge.merging.pool.opening import OpenTerms, TermFiles, open_terms
from negmerge.merging.tally import Merged
from negmerge.merging.term import Term


@dataclass(frozen=True)
class TermRequest:
    """A term as it was asked for: its files, its method, what it is multiplied by, and how it is projected.

    `project` is a projection that a recipe asks for, `change` one that is open.
    """

    files: TermFiles
    merger: Merger
    alpha: float = 1.0
    add: bool = False
    project: Project | None = None
    change: LayerChange | None = None


@dataclass(frozen=True)
class MergeRequest:
    """A merge as it was asked for, all its settings checked: θ = base + Σ ±α · w ⊙ method(members − origin)."""

    base: Path
    terms: Sequence[TermRequest]
    output: Path
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    buffers: Policy = "keep"
    device: str = "cpu"
    dtype: str = "base"
    workers: int | None = None
    max_shard_size: str | None = None
    hash_inputs: bool = True
    overwrite: bool = False
    on_event: OnEvent | None = None
    recipe: bytes | None = None

    @property
    def inputs(self) -> list[Path]:
        """Every path that is read."""
        return [self.base, *(path for term in self.terms for path in term.files.all)]


def write_merge(request: MergeRequest) -> MergeReport:
    """Compute a merge and write OUT, and beside it the recipe if the request came as one.

    Raises InputError, with nothing written, for whatever is wrong with the inputs or OUT.
    """
    started = time.perf_counter()
    output, target = request.output, BY_NAME.get(request.dtype)
    most = _shard_size(output, request.max_shard_size)
    recover_folder(output)
    check_output(output, request.inputs, request.overwrite)
    kept = KeptRecipe(output, request.recipe, request.overwrite)
    files = [term.files for term in request.terms]
    with open_terms(request.base, files, request.include, request.exclude, request.buffers) as opened:
        plan = plan_terms(opened, request.terms, request.device)
        beside = None if is_file_output(output) else beside_of(opened, request.dtype)
        hashes = InputHashes(opened.checkpoints) if request.hash_inputs else InputHashes()
        total, places = plan.bytes_to_read, Places()
        facts = merge_facts(
            plan,
            request.include,
            request.exclude,
            request.hash_inputs,
            hashes,
            places,
            buffers=request.buffers,
            recipe=request.recipe,
        )
        warnings: list[str] = []

        def of_out(name: str) -> DType:
            return out_dtype(plan.base, name, target)

        def write(weights: WeightsWriter) -> Merged:
            for name in plan.passed:
                warnings.extend(pass_through(plan.base, name, of_out(name), weights, hashes))
            outlet = Outlet(
                of_out,
                plan.under_all_names(weights.write),
                hashed=True,
                at_least=least_values(plan.merged),
                alpha=request.terms[0].alpha,
            )
            on_bytes = byte_counter(request.on_event, total)
            if all(term.change is None for term in plan.terms):
                return execute(plan, outlet, workers=request.workers, on_bytes=on_bytes, hashes=hashes)
            applied = AppliedByLayer(plan, outlet)
            found = execute(plan, applied.outlet, workers=request.workers, on_bytes=on_bytes, hashes=hashes)
            return applied.merged(found)

        layout = [(name, of_out(name), plan.base.shape(name)) for name in plan.base.names]
        out = OutputPlan(output, layout, facts, places, most, request.overwrite, beside, request.recipe)
        merged = write_file(out, write) if is_file_output(output) else write_folder(out, write)
        kept.write()
        dtypes = [of_out(name) for name in plan.merged]
        return merge_report(plan, merged, output, started, total, beside, warnings, dtypes)


def plan_terms(opened: OpenTerms, terms: Sequence[TermRequest], device: str) -> Plan:
    """Plan the merge of opened terms, their lists for the members in the order of the pools."""
    planned = [
        Term(pool, term.merger.fitted(pool.merged, pool.order, pool.tied), term.alpha, term.add, weights, term.change)
        for term, pool, weights in zip(terms, opened.pools, opened.weights, strict=True)
    ]
    return plan_merge(opened.base, planned, device)


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


def beside_of(opened: OpenTerms, dtype: str) -> Beside | None:
    """Return what goes from the base's folder into OUT; a base that is one file has no folder of its own."""
    base = opened.base
    if base.path.is_file():
        return None
    changes = key_paths(opened.pools[0].config_changes)
    return plan_beside(base.files[0].parent, base.files, None if dtype == "base" else dtype, changes)


def _shard_size(output: Path, text: str | None) -> int:
    if is_file_output(output) and text is not None:
        raise InputError(f"OUT {output} is one file, which has no shards; give a folder, or leave --max-shard-size out")
    return parse_size(text or "5GB")
