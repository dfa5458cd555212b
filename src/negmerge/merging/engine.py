"""Merging checkpoints: in one streamed pass from files to a file, or in memory."""

import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import Checkpoint, SafetensorsWriter, atomic_write, hash_file, partial_path
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.memory import StateDict
from negmerge.errors import InputError
from negmerge.merging.applying import apply_delta, check_alpha
from negmerge.merging.output import check_output, is_file_output, recover_folder, write_folder
from negmerge.merging.pool import Pool, fit_pool, open_pool
from negmerge.merging.record import PLACEHOLDER, file_facts, metadata, model_card
from negmerge.merging.streaming import CHUNK, Merger, TensorCount, stream

__all__ = ["MergeReport", "VectorReport", "apply_delta", "merge_checkpoints", "merge_state_dicts", "merge_vector"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class MergeReport:
    """What a merge did. `seconds` from opening the inputs to the rename; `bytes_read` and `peak_rss` in bytes."""

    output: Path
    method: str
    members: tuple[str, ...]
    elements: int
    merged_elements: int
    kept: int
    alpha: float
    seconds: float
    bytes_read: int
    tensors: tuple[TensorCount, ...]

    @property
    def consensus(self) -> float:
        """The share of the merged elements that were kept."""
        return self.kept / self.merged_elements

    def as_json(self) -> dict[str, Any]:
        """Return the report as `negmerge merge --json` prints it."""
        return {
            "output": str(self.output),
            "method": self.method,
            "members": list(self.members),
            "elements": self.elements,
            "merged_elements": self.merged_elements,
            "kept": self.kept,
            "consensus": self.consensus,
            "alpha": self.alpha,
            "seconds": self.seconds,
            "bytes_read": self.bytes_read,
            "peak_rss": _peak_rss(),
        }


@dataclass(frozen=True)
class VectorReport:
    """What a merge to a vector kept, in all and of each tensor."""

    tensors: tuple[TensorCount, ...]

    @property
    def kept(self) -> int:
        """Elements kept."""
        return sum(tensor.kept for tensor in self.tensors)

    @property
    def merged_elements(self) -> int:
        """Elements of all merged tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def consensus(self) -> float:
        """The share of the merged elements that were kept."""
        return self.kept / self.merged_elements


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
    device: str = "cpu",
    dtype: str = "base",
    workers: int | None = None,
    hash_inputs: bool = True,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> MergeReport:
    """Merge the task vectors of checkpoints and write θ₀ − α·τ (θ₀ + α·τ with `add`).

    τᵢ = θᵢ − θ₀ in float32 (float64 for float64 weights); τ = method(τ₁ … τ_N), members in the order of their resolved
    paths; the result is cast once to the dtype of θ₀, or to `dtype`. Integers, booleans and batch-norm statistics pass
    through from the base. Only chunks are in memory, never a model. OUT ending in .safetensors is one file, anything
    else a folder with the base's config and tokenizer files; it appears whole or not at all, and the same inputs
    give the same bytes.

    Raises InputError, with nothing written, for whatever is wrong with the inputs, the settings or OUT.

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583).
    """
    started = time.perf_counter()
    base, output = Path(base), Path(output)
    paths = [Path(member) for member in members]
    check_alpha(alpha)
    target = _target_dtype(dtype)
    merger = Merger(method, settings or {})
    recover_folder(output)
    check_output(output, [base, *paths], overwrite)
    with open_pool(base, paths, include, exclude) as pool:
        facts: dict[str, Any] = {
            "method": method,
            "settings": merger.settings,
            "operation": "add" if add else "subtract",
            "alpha": alpha,
            "include": list(include),
            "exclude": list(exclude),
            "base": file_facts(pool.base.file, pool.base.path, hash_inputs),
            "members": [file_facts(member.file, member.path, hash_inputs) for member in pool.members],
        }
        _refuse_copies(pool, facts)
        counts: list[TensorCount] = []

        def write(path: Path) -> None:
            counts.extend(
                _write_merged(pool, merger, path, metadata(facts), alpha, add, target, workers, device, on_event)
            )

        if is_file_output(output):
            write(output)
        else:
            write_folder(output, base, model_card(facts), write)
        return MergeReport(
            output=output,
            method=method,
            members=tuple(str(member.path) for member in pool.members),
            elements=sum(elements(pool.base.shape(name)) for name in pool.base.names),
            merged_elements=sum(count.elements for count in counts),
            kept=sum(count.kept for count in counts),
            alpha=alpha,
            seconds=time.perf_counter() - started,
            bytes_read=_bytes(pool),
            tensors=tuple(counts),
        )


def merge_vector(
    base: Path | str,
    members: Sequence[Path | str],
    output: Path | str,
    *,
    method: str = "consensus",
    settings: Mapping[str, Any] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int | None = None,
    device: str = "cpu",
) -> VectorReport:
    """Merge the task vectors of checkpoints and write τ itself, in the dtype of the arithmetic; OUT is replaced.

    Only merged names are in the file. Raises InputError as `merge_checkpoints` does.
    """
    merger = Merger(method, settings or {})
    with open_pool(Path(base), [Path(member) for member in members], include, exclude) as pool:
        exact = {torch.float64: torch.float64}
        layout = [
            (name, exact.get(pool.base.dtype(name), torch.float32), pool.base.shape(name)) for name in pool.merged
        ]
        with atomic_write(Path(output)) as file:
            writer = SafetensorsWriter(file, layout)

            def visit(name: str, start: int, _: Tensor, deltas: Tensor) -> int:
                delta, kept = merger.merge(deltas, device)
                writer.write(name, start, delta)
                return kept

            counts = stream(pool, visit, workers=workers)
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
) -> dict[str, Tensor]:
    """Merge state dicts in memory and return θ₀ − α·τ as a new state dict; the arguments stay as they are.

    The numbers are those of `merge_checkpoints`, the members summed in the order given. Raises InputError likewise.

    >>> base, a, b = ({"w": torch.tensor(values)} for values in ([0.0, 0.0], [1.0, 1.0], [3.0, -1.0]))
    >>> merge_state_dicts(base, [a, b])["w"]
    tensor([-2.,  0.])
    """
    check_alpha(alpha)
    merger = Merger(method, settings or {})
    opened = [StateDict(member, Path(f"members[{i}]")) for i, member in enumerate(members)]
    if len({id(member) for member in members}) < len(members):
        raise InputError("a member is given twice; a repeated member would count double")
    pool = fit_pool(StateDict(base, Path("base")), opened, include, exclude)
    result = {name: tensor.detach().clone() for name, tensor in base.items()}
    flat = {name: torch.empty(base[name].numel(), dtype=base[name].dtype) for name in pool.merged}

    def visit(name: str, start: int, origin: Tensor, deltas: Tensor) -> int:
        delta, kept = merger.merge(deltas)
        flat[name][start : start + len(delta)] = apply_delta(origin, delta, alpha, add)
        return kept

    stream(pool, visit)
    for name, values in flat.items():
        result[name] = values.reshape(base[name].shape).to(base[name].device)
    return result


def _write_merged(
    pool: Pool,
    merger: Merger,
    path: Path,
    texts: Mapping[str, str],
    alpha: float,
    add: bool,
    target: torch.dtype | None,
    workers: int | None,
    device: str,
    on_event: OnEvent | None,
) -> list[TensorCount]:
    def out_dtype(name: str) -> torch.dtype:
        own = pool.base.dtype(name)
        return target if target is not None and own.is_floating_point else own

    layout = [(name, out_dtype(name), pool.base.shape(name)) for name in pool.base.names]
    with atomic_write(path) as file:
        writer = SafetensorsWriter(file, layout, texts)
        for name in pool.passed:
            _pass_through(pool.base, name, out_dtype(name), writer)

        def visit(name: str, start: int, base: Tensor, deltas: Tensor) -> int:
            delta, kept = merger.merge(deltas, device)
            writer.write(name, start, apply_delta(base, delta, alpha, add, out_dtype(name)))
            return kept

        counts = stream(pool, visit, workers=workers, on_bytes=_telling(on_event, _bytes(pool)))
        writer.replace_in_header(PLACEHOLDER, hash_file(partial_path(path), writer.data_start))
    return counts


def _telling(on_event: OnEvent | None, total: int) -> Callable[[int], None] | None:
    if on_event is None:
        return None
    lock, done = threading.Lock(), 0

    def tell(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            on_event({"event": "merged", "bytes": done, "of": total})

    return tell


def _pass_through(base: Checkpoint, name: str, dtype: torch.dtype, writer: SafetensorsWriter) -> None:
    total = elements(base.shape(name))
    for start in range(0, total, CHUNK):
        values = base.read(name, start, min(start + CHUNK, total))
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise InputError(f"{base.path}: tensor {name} holds NaN or Inf; repair the base first")
        writer.write(name, start, values.to(dtype))


def _refuse_copies(pool: Pool, facts: Mapping[str, Any]) -> None:
    """Raise InputError where two inputs have the same hash: a copy of the base, or a member that would count twice."""
    seen: dict[str, Path] = {}
    inputs = [(facts["base"], pool.base), *zip(facts["members"], pool.members, strict=True)]
    for entry, checkpoint in inputs:
        if "hash" in entry:
            first = seen.setdefault(entry["hash"], checkpoint.path)
            if first != checkpoint.path:
                raise InputError(f"{checkpoint.path} has the same content as {first}; leave one of them out")


def _bytes(pool: Pool) -> int:
    every = (pool.base, *pool.members)
    return sum(elements(c.shape(name)) * c.dtype(name).itemsize for c in every for name in pool.merged)


def _target_dtype(dtype: str) -> torch.dtype | None:
    if dtype != "base" and dtype not in DTYPES:
        raise InputError(f"dtype must be base or one of {', '.join(DTYPES)}, got {dtype!r}")
    return DTYPES.get(dtype)


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
