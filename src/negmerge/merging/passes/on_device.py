"""The way over an accelerator: each thread reads pieces into pinned memory, and computes them on a stream of its own.

While one thread reads from the disk, another's pieces are on the bus and a third's are being merged. The numbers are
those of the plain way: float32 sums in the order of the members, elements in their own dtype on the bus.
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.adapter import BoundAdapter
from negmerge.checkpoints.dtypes import exact
from negmerge.checkpoints.memory import stored
from negmerge.checkpoints.plain_file import read_into
from negmerge.merging.applying import HALVES, Floats, Outlet, range_error
from negmerge.merging.hashes import InputHashes
from negmerge.merging.method import Place
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.passes.plain import EVERY, NOTHING, SAMPLED, PieceFound, refuse_infinite

if TYPE_CHECKING:
    from negmerge.merging.term import Statistics, Term


@dataclass
class _Lane:
    """What a thread works with: a stream, and pinned bytes for each checkpoint and for the result."""

    stream: Any
    pinned: list[Tensor]


class DeviceTerm:
    """Merges pieces of one term on a device; several threads may ask it."""

    def __init__(self, term: "Term", statistics: "Statistics", device: str, hashes: InputHashes) -> None:
        self._term, self._statistics, self._hashes = term, statistics, hashes
        self._device = torch.device(device)
        self._checkpoints: tuple[Checkpoint, ...] = (term.pool.base, *term.pool.members)
        self._local = threading.local()

    def merge(self, piece: Piece) -> PieceFound:
        """Return τ of a piece, on the CPU, and what was found. Raises InputError for NaN or Inf."""
        with self._on_stream():
            base, deltas = self._deltas(piece)
            merged, found = self._merged(piece, base, deltas)
            return PieceFound(merged.cpu().numpy(), *found)

    def merge_whole(self, piece: Piece, outlet: Outlet) -> tuple[PieceFound, Floats]:
        """Compute θ₀ ∓ α·τ of a piece, write it, and return what was found and the effect (see effect_of).

        Raises InputError for NaN or Inf, and where the result leaves the range of the dtype of OUT.
        """
        name, start, _ = piece
        with self._on_stream():
            base, deltas = self._deltas(piece)
            merged, found = self._merged(piece, base, deltas)
            step = merged * self._term.alpha
            values = base + step if self._term.add else base - step
            dtype = outlet.dtype(name)
            out = values.to(dtype.torch)
            written, before = out.to(base.dtype), base.to(dtype.torch).to(base.dtype)
            moved = before[step != 0] if dtype in HALVES else before[:0]
            powers = (moved.float().abs().view(torch.int32) & 0x7F800000).view(torch.float32)
            measured = torch.stack(
                [
                    torch.count_nonzero(written != before).double(),
                    step.double().square().sum(),
                    base.double().square().sum(),
                    (written.double() - values.double()).square().sum(),
                    powers.double().square().sum(),
                    torch.count_nonzero(~torch.isfinite(out)).double(),
                ]
            ).cpu()
            if measured[5]:
                raise range_error(name, dtype, self._term.alpha)
            outlet.write(name, start, stored(self._to_host(out)))
            return PieceFound(NOTHING, *found), measured[:5].numpy()

    def _merged(self, piece: Piece, base: Tensor, deltas: Tensor) -> tuple[Tensor, tuple[int, Any, Any, Any]]:
        name, start, _ = piece
        known = self._statistics.get(name)
        statistic = None if known is None else torch.from_numpy(np.asarray(known)).to(self._device)
        merged, kept = self._term.merger.merge_there(deltas, Place(name, start), statistic)
        members = len(deltas)
        places = torch.arange(start, start + deltas.shape[1], device=self._device)
        sampled = places % EVERY < SAMPLED
        rows = torch.cat([base[None, sampled], deltas[:, sampled]]).double()
        signs = rows[1:].sign()
        zeros = torch.count_nonzero(signs == 0, dim=1)
        counts = torch.cat(
            [
                torch.tensor([rows.shape[1]], device=self._device),
                torch.count_nonzero(signs.sum(0).abs() == members)[None],
                zeros,
            ]
        )
        differs = (deltas != 0).any(1).cpu().numpy()
        products = np.zeros((2, len(rows), len(rows)))
        products[int(len(self._term.pool.base.shape(name)) < 2)] = (rows @ rows.T).tril().cpu().numpy()
        return merged, (kept, differs, products, counts.cpu().numpy())

    def _deltas(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Return the base's elements and the task vectors [N, n] of a piece on the device, in the dtype of the sums."""
        name, start, stop = piece
        lane = self._lane()
        wide = exact(self._term.pool.base.dtype(name)).torch
        base = self._raw(lane, 0, self._checkpoints[0], piece).to(wide)
        deltas = torch.empty(len(self._checkpoints) - 1, stop - start, dtype=wide, device=self._device)
        for i, member in enumerate(self._checkpoints[1:]):
            if isinstance(member, BoundAdapter):
                deltas[i] = member.read_delta(name, start, stop).to(self._device)
            else:
                torch.sub(self._raw(lane, 1 + i, member, piece).to(wide), base, out=deltas[i])
        if not bool(torch.isfinite(deltas).all() & torch.isfinite(base).all()):
            refuse_infinite(self._term.pool, name, start, stop)
        return base, deltas

    def _raw(self, lane: _Lane, index: int, checkpoint: Checkpoint, piece: Piece) -> Tensor:
        """Return elements of a checkpoint on the device as they are stored; the copy may still be under way."""
        name, start, stop = piece
        dtype = checkpoint.dtype(name)
        place, size = checkpoint.locate(name), (stop - start) * dtype.itemsize
        if place is None or place[0] < 0:
            return checkpoint.read(name, start, stop).to(self._device)
        buffer = lane.pinned[index]
        if len(buffer) < size:
            buffer = lane.pinned[index] = self._pinned(size)
        descriptor, begin = place
        view = memoryview(buffer.numpy().data)[:size]
        offset = start * dtype.itemsize
        read_into(descriptor, view, begin + offset, f"{checkpoint.path}: tensor {name}")
        self._hashes.put(descriptor, begin, offset, view)
        return buffer[:size].to(self._device, non_blocking=True).view(dtype.torch)

    def _to_host(self, values: Tensor) -> Tensor:
        lane, size = self._lane(), values.numel() * values.element_size()
        if len(lane.pinned[-1]) < size:
            lane.pinned[-1] = self._pinned(size)
        host = lane.pinned[-1][:size].view(values.dtype)
        host.copy_(values)
        return host

    def _lane(self) -> _Lane:
        if not hasattr(self._local, "lane"):
            stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
            self._local.lane = _Lane(stream, [torch.empty(0, dtype=torch.uint8)] * (len(self._checkpoints) + 1))
        lane: _Lane = self._local.lane
        return lane

    def _on_stream(self) -> Any:
        return torch.cuda.stream(self._lane().stream)  # without effect where there is none

    def _pinned(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
