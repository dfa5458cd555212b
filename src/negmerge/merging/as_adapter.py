"""The change that a pool has in common, written as one adapter."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import Checkpoint, write_bytes_atomic
from negmerge.checkpoints.adapter import CONFIG, WEIGHTS
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import Raw, exact, of_torch
from negmerge.checkpoints.memory import stored
from negmerge.errors import InputError
from negmerge.merging.adapter_homes import PREFIX, AdapterPlan, plan_adapter
from negmerge.merging.applying import Outlet, apply_delta, range_error
from negmerge.merging.by_layer import ByLayer, vector_outlet
from negmerge.merging.factoring import factor
from negmerge.merging.hashes import InputHashes
from negmerge.merging.layer_change import LayerChange
from negmerge.merging.output.folder import check_output, is_file_output, recover_folder, written_folder
from negmerge.merging.output.model import OutputPlan, write_weights
from negmerge.merging.output.record import Places, merge_facts
from negmerge.merging.output.reports import AdapterReport, OnEvent, byte_counter, merge_report
from negmerge.merging.output.weights import FilePlan, WeightsWriter
from negmerge.merging.passes.executing import execute
from negmerge.merging.pool.opening import open_terms, term_files
from negmerge.merging.request import check_request
from negmerge.merging.tally import Merged
from negmerge.merging.writing import TermRequest, plan_terms


def merge_as_adapter(
    base: Path | str,
    members: Sequence[Path | str],
    output: Path | str,
    rank: int,
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    alpha: float = 1.0,
    add: bool = False,
    origin: Path | str | None = None,
    weights: Path | str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    workers: int | None = None,
    hash_inputs: bool = True,
    overwrite: bool = False,
    projection: LayerChange | None = None,
    on_event: OnEvent | None = None,
) -> AdapterReport:
    """Merge a pool of LoRA adapters or whole models and write the change −α·w⊙τ (+ with `add`) as one adapter.

        −α·τ ≈ B·A by truncated singular value decomposition of each τ,  error = √( Σ‖τ − τ̂‖² / Σ‖τ‖² )

    The factors are float32 of rank `rank`, with lora_alpha = r, so that the scale is 1. What a member that is an
    adapter trained as a whole (biases, modules_to_save) is written whole, in the dtype of the base, and has no error;
    so are embeddings, tied tensors, norms and biases of whole models. What PEFT has no place for (parameters that are
    no weight or bias of a layer) is left out, named in the report, and counts as error. A tensor is in memory whole
    while it is factored, one for each worker. OUT is a folder that PEFT loads onto the base; it appears whole or not
    at all. `origin` and `weights` are those of `merge_checkpoints`. `projection`, a `negmerge.projection.Projection`,
    changes τ before it is factored: ΔW = B·A becomes B·(A·M), of the same rank; of one more where the bias merges, too.

    Raises InputError as `merge_checkpoints` does, and for a pool without a matrix, or a rank below 1.

    Source: Hu et al., LoRA (arXiv 2106.09685); Eckart, Young 1936.
    """
    started = time.perf_counter()
    merger = check_request(
        method,
        settings,
        base=base,
        members=members,
        output=output,
        rank=rank,
        alpha=alpha,
        add=add,
        origin=origin,
        weights=weights,
        include=include,
        exclude=exclude,
        seed=seed,
        device=device,
        workers=workers,
        hash_inputs=hash_inputs,
        overwrite=overwrite,
    )
    base, output, alpha = Path(base), Path(output), float(alpha)
    term = TermRequest(term_files(members, origin, weights), merger, alpha, add, change=projection)
    if is_file_output(output):
        raise InputError(f"OUT {output} is one file, an adapter is a folder; give a name without .safetensors")
    recover_folder(output)
    check_output(output, [base, *term.files.all], overwrite)
    with open_terms(base, [term.files], include, exclude) as opened:
        plan = plan_terms(opened, [term], device)
        adapter = plan_adapter(replace(opened.pools[0], base=plan.base))
        total, places = plan.bytes_to_read, Places()
        hashes = InputHashes(opened.checkpoints) if hash_inputs else InputHashes()
        facts = merge_facts(plan, include, exclude, hash_inputs, hashes, places)
        parts = _Parts(plan.base, adapter, rank, alpha, add)
        outlet = Outlet(lambda name: exact(plan.base.dtype(name)), parts.put, vector=True)
        if projection is not None:
            outlet = vector_outlet(plan, [ByLayer(plan, plan.terms[0], lambda name, delta: parts.put(name, 0, delta))])
        merged = execute(plan, outlet, workers=workers, on_bytes=byte_counter(on_event, total))
        facts |= {"adapter_rank": rank, "adapter_error": parts.error}
        if adapter.left_out:
            facts |= {"adapter_left_out": list(adapter.left_out), "adapter_left_out_share": parts.left_out_share}
        tensors = parts.tensors()
        layout = [(key, of_torch(tensor.dtype), tuple(tensor.shape)) for key, tensor in tensors.items()]

        def write(weights: WeightsWriter) -> Merged:
            for key, tensor in tensors.items():
                weights.write(key, 0, stored(tensor.reshape(-1)))
            return merged

        out = OutputPlan(output, layout, facts, places, 0, overwrite)
        with written_folder(output, None, overwrite) as folder:
            write_bytes_atomic(folder / CONFIG, adapter.config(replace(opened.pools[0], base=plan.base), rank))
            write_weights(out, folder, [FilePlan(folder / WEIGHTS[0], layout)], write, {"errors": parts.errors()})
        report = merge_report(plan, merged, output, started, total)
    return AdapterReport(
        **vars(report),
        rank=rank,
        error=parts.error,
        whole=adapter.whole,
        left_out=adapter.left_out,
        left_out_share=parts.left_out_share,
    )


@dataclass(frozen=True)
class _Part:
    """What stands for the change of one tensor: named values, and the squared norms of the change and of the error."""

    tensors: dict[str, Tensor]
    squared: float = 0.0
    squared_error: float = 0.0


class _Parts:
    """Takes the pieces of τ in any order, from threads, and turns each tensor that is whole into its part."""

    def __init__(self, base: Checkpoint, plan: AdapterPlan, rank: int, alpha: float, add: bool) -> None:
        self.homes = plan.homes
        self._copies, self._passed = plan.copies, plan.passed
        self._base, self._rank, self._alpha, self._add = base, rank, alpha, add
        self._pieces: dict[str, dict[int, Tensor]] = {name: {} for name in self.homes}
        self._parts: dict[str, _Part] = {}
        self._left_out: dict[tuple[str, int], float] = {}

    def put(self, name: str, start: int, values: Raw) -> None:
        """Take a piece of τ of the flattened tensor `name`."""
        if name not in self.homes:
            self._left_out[name, start] = _squares(torch.from_numpy(values))
            return
        pieces = self._pieces[name]
        pieces[start] = torch.from_numpy(values.copy())  # it may be a row of the whole chunk
        # Only the thread that puts the last piece in takes all of them out.
        if sum(len(piece) for piece in list(pieces.values())) == elements(self._base.shape(name)):
            taken = self._pieces.pop(name, None)
            if taken is not None:
                self._parts[name] = self._part(name, torch.cat([taken[at] for at in sorted(taken)]))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the adapter, in the order of the base, and last those that stay as they are."""
        found = {key: tensor for name in self.homes for key, tensor in self._parts[name].tensors.items()}
        for key, name in self._passed.items():
            found[PREFIX + key] = self._base.read(name).reshape(self._base.shape(name))
        return found

    def errors(self) -> dict[str, float]:
        """Return the relative error of each tensor that was factored."""
        parts = {name: self._parts[name] for name, home in self.homes.items() if home.form != "whole"}
        return {name: _relative(part.squared_error, part.squared) for name, part in parts.items()}

    @property
    def error(self) -> float:
        """The relative error of all tensors together, √( Σ‖τ − τ̂‖² / Σ‖τ‖² ); 0 where τ is 0."""
        lost = self._lost()
        return _relative(lost + sum(self._parts[name].squared_error for name in self.homes), self._total())

    @property
    def left_out_share(self) -> float:
        """The share of ‖τ‖² that is left out; 0 where τ is 0."""
        total = self._total()
        return self._lost() / total if total else 0.0

    def _lost(self) -> float:
        return sum(self._left_out[key] for key in sorted(self._left_out))

    def _total(self) -> float:
        return self._lost() + sum(self._parts[name].squared for name in self.homes)

    def _part(self, name: str, delta: Tensor) -> _Part:
        home, shape = self.homes[name], self._base.shape(name)
        if home.form == "whole":
            values = apply_delta(self._base.read(name), delta, self._alpha, self._add)
            _check_range(name, values, self._alpha)
            keys = [PREFIX + key.removeprefix(PREFIX) for key in (home.key, *self._copies[name])]
            return _Part({key: values.reshape(shape) for key in keys}, _squares(delta))
        matrix = delta.float().reshape(shape[0], -1)
        found = factor(matrix.T if home.turned else matrix, self._rank)
        left = found.left * (self._alpha if self._add else -self._alpha)
        _check_range(name, left, self._alpha)
        right = found.right
        if len(shape) > 2:  # convolutions
            left, right = left.reshape(*left.shape, *[1] * (len(shape) - 2)), right.reshape(-1, *shape[1:])
        a, b = (
            ("lora_embedding_A", "lora_embedding_B") if home.form == "embedding" else ("lora_A.weight", "lora_B.weight")
        )
        own = PREFIX + home.key
        return _Part({f"{own}.{a}": right, f"{own}.{b}": left}, _squares(matrix), found.squared_error)


def _check_range(name: str, values: Tensor, alpha: float) -> None:
    if not torch.isfinite(values).all():
        raise range_error(name, of_torch(values.dtype), alpha)


def _squares(values: Tensor) -> float:
    return float(values.double().square().sum())


def _relative(squared_error: float, squared: float) -> float:
    return math.sqrt(squared_error / squared) if squared else 0.0
