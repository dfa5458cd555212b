"""The change that a pool of adapters has in common, written as one adapter."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic
from negmerge.checkpoints.adapter import CONFIG, WEIGHTS, BoundAdapter, Home
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import Raw, exact, of_torch
from negmerge.checkpoints.memory import stored
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet, apply_delta, range_error
from negmerge.merging.factoring import factor
from negmerge.merging.hashes import InputHashes
from negmerge.merging.output.folder import check_output, is_file_output, recover_folder, written_folder
from negmerge.merging.output.model import OutputPlan, write_weights
from negmerge.merging.output.record import Places, merge_facts
from negmerge.merging.output.reports import AdapterReport, OnEvent, byte_counter, merge_report
from negmerge.merging.output.weights import FilePlan, WeightsWriter
from negmerge.merging.passes.executing import execute
from negmerge.merging.plan import Term, plan_merge
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.opening import open_pool
from negmerge.merging.pool.ties import groups
from negmerge.merging.request import check_request
from negmerge.merging.tally import Merged

PREFIX = "base_model.model."


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
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    workers: int | None = None,
    hash_inputs: bool = True,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> AdapterReport:
    """Merge a pool of LoRA adapters and write the change −α·τ (+α·τ with `add`) as one adapter of rank `rank`.

        −α·τ ≈ B·A by truncated singular value decomposition of each τ,  error = √( Σ‖τ − τ̂‖² / Σ‖τ‖² )

    The factors are float32, with lora_alpha = r, so that the scale is 1. What a member trained as a whole (biases,
    modules_to_save) is written whole, in the dtype of the base, and has no error. A tensor is in memory whole while it
    is factored, one for each worker. OUT is a folder that PEFT loads; it appears whole or not at all.

    Raises InputError as `merge_checkpoints` does, and for a member that is no adapter, or a rank below 1.

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
        include=include,
        exclude=exclude,
        seed=seed,
        device=device,
        workers=workers,
        hash_inputs=hash_inputs,
        overwrite=overwrite,
    )
    base, output, alpha = Path(base), Path(output), float(alpha)
    paths = [Path(member) for member in members]
    if is_file_output(output):
        raise InputError(f"OUT {output} is one file, an adapter is a folder; give a name without .safetensors")
    recover_folder(output)
    check_output(output, [base, *paths], overwrite)
    with open_pool(base, paths, include, exclude) as pool:
        adapters = _adapters(pool)
        plan = plan_merge(
            pool.base, [Term(pool, merger.fitted(pool.merged, pool.order, pool.tied), alpha, add)], device
        )
        total, places = plan.bytes_to_read, Places()
        facts = merge_facts(plan, include, exclude, hash_inputs, InputHashes(), places)
        homes = _homes(pool, adapters)
        parts = _Parts(pool, homes, _copies(pool, adapters, homes), rank, alpha, add)
        outlet = Outlet(lambda name: exact(pool.base.dtype(name)), parts.put, vector=True)
        merged = execute(plan, outlet, workers=workers, on_bytes=byte_counter(on_event, total))
        facts |= {"adapter_rank": rank, "adapter_error": parts.error}
        tensors = parts.tensors()
        layout = [(key, of_torch(tensor.dtype), tuple(tensor.shape)) for key, tensor in tensors.items()]

        def write(weights: WeightsWriter) -> Merged:
            for key, tensor in tensors.items():
                weights.write(key, 0, stored(tensor.reshape(-1)))
            return merged

        out = OutputPlan(output, layout, facts, places, 0, overwrite)
        with written_folder(output, None, overwrite) as folder:
            write_bytes_atomic(folder / CONFIG, _config(adapters, parts.homes, rank))
            write_weights(out, folder, [FilePlan(folder / WEIGHTS[0], layout)], write, {"errors": parts.errors()})
        report = merge_report(plan, merged, output, started, total)
    return AdapterReport(**vars(report), rank=rank, error=parts.error)


@dataclass(frozen=True)
class _Part:
    """What stands for the change of one tensor: named values, and the squared norms of the change and of the error."""

    tensors: dict[str, Tensor]
    squared: float = 0.0
    squared_error: float = 0.0


class _Parts:
    """Takes the pieces of τ in any order, from threads, and turns each tensor that is whole into its part."""

    def __init__(
        self,
        pool: Pool,
        homes: Mapping[str, Home],
        copies: Mapping[str, Sequence[str]],
        rank: int,
        alpha: float,
        add: bool,
    ) -> None:
        self.homes = homes
        self._copies = copies
        self._pool, self._rank, self._alpha, self._add = pool, rank, alpha, add
        self._pieces: dict[str, dict[int, Tensor]] = {name: {} for name in homes}
        self._parts: dict[str, _Part] = {}

    def put(self, name: str, start: int, values: Raw) -> None:
        """Take a piece of τ of the flattened tensor `name`."""
        if name not in self.homes:  # it has no elements
            return
        pieces = self._pieces[name]
        pieces[start] = torch.from_numpy(values.copy())  # it may be a row of the whole chunk
        # Only the thread that puts the last piece in takes all of them out.
        if sum(len(piece) for piece in list(pieces.values())) == elements(self._pool.base.shape(name)):
            taken = self._pieces.pop(name, None)
            if taken is not None:
                self._parts[name] = self._part(name, torch.cat([taken[at] for at in sorted(taken)]))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the adapter, in the order of the base."""
        return {key: tensor for name in self.homes for key, tensor in self._parts[name].tensors.items()}

    def errors(self) -> dict[str, float]:
        """Return the relative error of each tensor that was factored."""
        parts = {name: self._parts[name] for name, home in self.homes.items() if home.form != "whole"}
        return {name: _relative(part.squared_error, part.squared) for name, part in parts.items()}

    @property
    def error(self) -> float:
        """The relative error of all factored tensors together, √( Σ‖τ − τ̂‖² / Σ‖τ‖² ); 0 where τ is 0."""
        parts = [self._parts[name] for name in self.homes]
        return _relative(sum(part.squared_error for part in parts), sum(part.squared for part in parts))

    def _part(self, name: str, delta: Tensor) -> _Part:
        home, shape = self.homes[name], self._pool.base.shape(name)
        if home.form == "whole":
            values = apply_delta(self._pool.base.read(name), delta, self._alpha, self._add)
            _check_range(name, values, self._alpha)
            keys = [PREFIX + key.removeprefix(PREFIX) for key in (home.key, *self._copies[name])]
            return _Part({key: values.reshape(shape) for key in keys})
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
        return _Part(
            {f"{own}.{a}": right, f"{own}.{b}": left}, float(matrix.double().square().sum()), found.squared_error
        )


def _check_range(name: str, values: Tensor, alpha: float) -> None:
    if not torch.isfinite(values).all():
        raise range_error(name, of_torch(values.dtype), alpha)


def _relative(squared_error: float, squared: float) -> float:
    return math.sqrt(squared_error / squared) if squared else 0.0


def _adapters(pool: Pool) -> list[BoundAdapter]:
    for member in pool.members:
        if not isinstance(member, BoundAdapter):
            raise InputError(f"{member.path} is no adapter; --as-adapter merges a pool of adapters alone")
    return [member for member in pool.members if isinstance(member, BoundAdapter)]


def _homes(pool: Pool, adapters: Sequence[BoundAdapter]) -> dict[str, Home]:
    """Return where each merged tensor goes: into factors, once, if one member has factors of it by any of its names."""
    homes: dict[str, Home] = {}
    for name, own in _own_names(pool).items():
        found = [adapter.homes[tied] for tied in own for adapter in adapters if tied in adapter.homes]
        if found and elements(pool.base.shape(name)):
            homes[name] = next((home for home in found if home.form != "whole"), found[0])
    return homes


def _copies(pool: Pool, adapters: Sequence[BoundAdapter], homes: Mapping[str, Home]) -> dict[str, list[str]]:
    """Return the further keys of each tensor that is written whole: members saved tied tensors by each of their names.

    PEFT copies what an adapter saves, and so a name that is left out would stay as it is in the base.
    """
    found: dict[str, list[str]] = {}
    for name, own in _own_names(pool).items():
        if name in homes and homes[name].form == "whole":
            keys = dict.fromkeys(a.homes[tied].key for tied in own for a in adapters if tied in a.homes)
            found[name] = [key for key in keys if key != homes[name].key]
    return found


def _own_names(pool: Pool) -> dict[str, list[str]]:
    return groups([*pool.merged, *pool.tied, *pool.implied], {**pool.implied, **pool.tied})


def _config(adapters: Sequence[BoundAdapter], homes: Mapping[str, Home], rank: int) -> bytes:
    """Return adapter_config.json: what the members agree on, and the modules that are touched."""
    first = adapters[0].config

    def agreed(key: str) -> Any:
        values = [adapter.config.get(key) for adapter in adapters]
        return values[0] if all(value == values[0] for value in values) else None

    saved = dict.fromkeys(name for adapter in adapters for name in adapter.config.get("modules_to_save") or ())
    biases = [bias for adapter in adapters if (bias := adapter.config.get("bias") or "none") != "none"]
    config = {
        "peft_type": "LORA",
        "task_type": agreed("task_type"),
        "auto_mapping": agreed("auto_mapping"),
        "base_model_name_or_path": agreed("base_model_name_or_path"),
        "revision": agreed("revision"),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "target_modules": [home.key for home in homes.values() if home.form != "whole"],
        "modules_to_save": list(saved) or None,
        "bias": biases[0] if biases else "none",
        "fan_in_fan_out": any(home.form == "factors" and home.turned for home in homes.values()),
        "layers_pattern": None,
        **({"ensure_weight_tying": True} if agreed("ensure_weight_tying") else {}),
        "peft_version": first.get("peft_version"),
    }
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
