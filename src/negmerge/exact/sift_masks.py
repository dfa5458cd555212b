"""SIFT-Masks: task vectors that all lie in one orthant, so that a sum and a bit mask for each stand for all of them.

    v ∈ {−1, +1}^d, drawn once, before anything is trained;
    τ_t ← τ_t ⊙ 1{τ_t ⊙ v > 0} after every step of client t's training from θ₀;
    m_t = 1{τ_t ≠ 0};  τ̄ = Σ τ_t over the T clients that are there;
    client t is served θ₀ + (τ̄ ⊙ m_t) / T, rows of no client θ₀ + τ̄ / T.

A client is deleted by a sum over the others, formed anew in their order: its bits are those of a sum that never had the
client, which a difference's are not. Source: arXiv 2504.04626, of which the equations are; sums formed anew are ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from negmerge.checkpoints import Checkpoint, SafetensorsWriter, atomic_write, open_checkpoint, write_state_dict
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import FLOAT32, from_floats, to_floats
from negmerge.errors import InputError
from negmerge.merging.drawing import uniform
from negmerge.merging.method import Place

CHUNK = 2**20  # elements in memory of each file; a multiple of 8, so that masks are cut between bytes
MASK, VALUES = ".mask", ".values"  # of a tensor's name, in the file of a vector

Bits = np.ndarray[Any, np.dtype[np.bool_]]


def sign_is_plus(seed: int, name: str, start: int, count: int) -> Bits:
    """Return where v is +1, bool [count], for elements `start` … of the flattened tensor `name`.

    Each is +1 with probability ½, drawn from (seed, name, index) alone: no order, chunk or device changes it.
    """
    drawn: Bits = uniform(Place(name, start, seed), 0, count).numpy() < 0.5
    return drawn


class Sift:
    """Keeps the trained parameters of a model on their side of θ₀: what training calls after every step.

    θ ← θ where (θ − θ₀)·v > 0, else θ₀; element by element, with no rounding. v lies in memory as a byte an element.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self._held = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                plus = torch.from_numpy(sign_is_plus(seed, name, 0, parameter.numel())).view(parameter.shape)
                self._held.append((parameter, parameter.detach().clone(), plus.to(parameter.device)))

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Put what crossed over, or did not move, back to θ₀."""
        for parameter, origin, plus in self._held:
            kept = torch.where(plus, parameter > origin, parameter < origin)
            parameter.copy_(torch.where(kept, parameter, origin))


def write_vector(path: Path, base: Mapping[str, Tensor], model: nn.Module) -> dict[str, int]:
    """Write τ = θ − θ₀ of a model's trained parameters; return how many elements there are, and how many are not 0.

    For each tensor two of the file: NAME.mask, uint8 [⌈n/8⌉], bit 7 − (i mod 8) of byte ⌊i/8⌋ set where τ(i) ≠ 0, and
    NAME.values, float32: τ there, in order. τ is float32, of weights in float32.
    """
    found: dict[str, Tensor] = {}
    total = kept = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        delta = (parameter.detach().cpu().float() - base[name].float()).reshape(-1).numpy()
        mask = delta != 0.0
        found[name + MASK] = torch.from_numpy(np.packbits(mask))
        found[name + VALUES] = torch.from_numpy(delta[mask])
        total, kept = total + mask.size, kept + int(mask.sum())
    write_state_dict(path, found)
    return {"elements": total, "kept": kept}


def read_mask(vector: Checkpoint, name: str, start: int, stop: int) -> Bits:
    """Return m of the elements start … stop of a tensor, bool; `start` is a multiple of 8."""
    packed = vector.raw(name + MASK, start // 8, -(-stop // 8))
    bits: Bits = np.unpackbits(packed, count=stop - start).astype(np.bool_)
    return bits


def write_sum(path: Path, base: Checkpoint, vectors: Sequence[Path]) -> None:
    """Write τ̄ = Σ τ_t, float32, of vectors in the order given; nothing of any is in memory but a chunk.

    Partial sums are float64 and rounded once, so that the bits hang on the vectors and their order alone. Without
    vectors every element is 0. Names and shapes are those of the vectors' tensors in the base. Raises InputError where
    vectors have other tensors than the first.
    """
    with ExitStack() as stack:
        opened = [_opened(stack, path) for path in vectors]
        names = names_of(opened[0]) if opened else [n for n in base.names if base.dtype(n).is_floating_point]
        for vector in opened:
            if names_of(vector) != names:
                raise InputError(f"{vector.path} has other tensors than {opened[0].path}; train both from one base")
        layout = [(name, FLOAT32, base.shape(name)) for name in names]
        writer = SafetensorsWriter(stack.enter_context(atomic_write(path)), layout)
        for name in names:
            read = [0] * len(opened)  # values so far: those of a chunk begin where those of the last one ended
            for start, stop in _chunks(elements(base.shape(name))):
                total = np.zeros(stop - start)
                for i, vector in enumerate(opened):
                    mask = read_mask(vector, name, start, stop)
                    count = int(mask.sum())
                    total[mask] += vector.raw(name + VALUES, read[i], read[i] + count)
                    read[i] += count
                writer.write(name, start, total.astype(np.float32))


def write_served(path: Path, base: Path, summed: Path, clients: int, vector: Path | None) -> None:
    """Write θ₀ + (τ̄ ⊙ m_t) / T of a client's vector, θ₀ + τ̄ / T without one, in the base's dtypes; T = 0: θ₀.

    Computed in float64 and rounded once. Other tensors are the base's.
    """
    with ExitStack() as stack:
        origin, total = _opened(stack, base), _opened(stack, summed)
        own = None if vector is None else _opened(stack, vector)
        known = set(total.names)
        layout = [(name, origin.dtype(name), origin.shape(name)) for name in origin.names]
        writer = SafetensorsWriter(stack.enter_context(atomic_write(path)), layout)
        for name, dtype, shape in layout:
            for start, stop in _chunks(elements(shape)):
                raw = origin.raw(name, start, stop)
                if name in known and clients:
                    step = total.raw(name, start, stop).astype(np.float64) / clients
                    if own is not None:
                        step[~read_mask(own, name, start, stop)] = 0.0
                    raw = from_floats(to_floats(raw, dtype).astype(np.float64) + step, dtype)
                writer.write(name, start, raw)


def crossed(path: Path, seed: int) -> int:
    """Return how many elements of a vector lie on the other side of v: 0 for one that was sifted."""
    wrong = 0
    with ExitStack() as stack:
        vector = _opened(stack, path)
        for name in names_of(vector):
            at = 0
            for start, stop in _chunks(8 * elements(vector.shape(name + MASK))):
                mask = read_mask(vector, name, start, stop)
                values = vector.raw(name + VALUES, at, at + int(mask.sum()))
                at += len(values)
                wrong += int(((values > 0) != sign_is_plus(seed, name, start, stop - start)[mask]).sum())
    return wrong


def names_of(vector: Checkpoint) -> list[str]:
    """Return the tensors that a vector is of."""
    return [name.removesuffix(MASK) for name in vector.names if name.endswith(MASK)]


def _opened(stack: ExitStack, path: Path) -> Checkpoint:
    found = open_checkpoint(path)
    stack.callback(found.close)
    return found


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(count, start + CHUNK)) for start in range(0, count, CHUNK))
