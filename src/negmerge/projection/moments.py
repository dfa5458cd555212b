"""The private file of second moments: taken from a model and two sets of rows, and opened again by whoever projects."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from negmerge.checkpoints.atomic import atomic_write
from negmerge.checkpoints.dtypes import of_torch
from negmerge.checkpoints.memory import stored
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.checkpoints.writing import SafetensorsWriter
from negmerge.errors import InputError
from negmerge.projection.collecting import Batches, Forward, Real, Survey, collect, survey
from negmerge.projection.layers import Layer, layer_of

KEY = "negmerge-moments"
FORMAT = 1
MEMORY = 2 * 2**30  # bytes of moments that are summed up in one pass
PARTS = ("forget", "retain")


@cache
def code_hash() -> str:
    """Return the hash of the code that moments come from: other code may find other moments."""
    here = Path(__file__).parent
    files = [here / name for name in ("collecting.py", "inputs.py", "layers.py", "moments.py")]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@dataclass(frozen=True)
class MomentRows:
    """Rows whose moments are taken: `batches()` yields their batches anew, `rows` is how many, `about` what."""

    batches: Batches
    rows: int
    about: str


def write_moments(
    path: Path,
    model: nn.Module,
    forget: MomentRows,
    retain: MomentRows,
    forward: Forward,
    first: Any,
    key: Mapping[str, Any],
    *,
    real: Real = lambda _: None,
    memory: int = MEMORY,
    tell: Callable[..., None] = lambda *_, **__: None,
) -> None:
    """Take the second moments of the inputs of all layers of a model on forget and on retain rows, and write them.

    `forward(model, batch)` runs the model, `first` is a batch of few rows, `real(batch)` a mask of the tokens that
    count. All layers are summed up in one pass over the rows as long as their moments take at most `memory` bytes; else
    groups of layers take turns, a pass each, with the same bytes as a result. Layers that no forget row or no retain
    row reaches, as where a model chooses by the row which of its modules it calls, are unseen; the passes are then made
    again without them. The file appears whole or not at all, for its owner only: it tells of the rows. `key` says what
    model and rows it is of.

    Raises InputError where no layer is left.
    """
    model.eval()
    further = (batch for rows in (forget, retain) for batch in islice(rows.batches(), 1))
    found = survey(model, forward, first, further=further, real=real)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        if not found.layers:
            raise InputError(
                "projection: the model has no linear layer, convolution or embedding whose inputs are seen and come "
                "from the rows; leave projection out"
            )
        try:
            _write(path, model, found, (forget, retain), forward, key, real, memory, tell)
            return
        except _UnreachedError as error:
            found = found.without(error.places)


class _UnreachedError(Exception):
    """Places that no forget row, or no retain row, reaches: a model may choose by the row what it calls."""

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__(*places)
        self.places = tuple(places)


def _write(
    path: Path,
    model: nn.Module,
    found: Survey,
    parts: Sequence[MomentRows],
    forward: Forward,
    key: Mapping[str, Any],
    real: Real,
    memory: int,
    tell: Callable[..., None],
) -> None:
    """Write the moments of all sources, whole or not at all. Raises _UnreachedError where there are none of some."""
    places = [place for place in found.sources if place not in found.added]
    layout = [
        (f"{part}/{place}", of_torch(_dtype(found, place)), found.sources[place].shape)
        for part in PARTS
        for place in places
    ]
    facts = {
        "format": FORMAT,
        "code": code_hash(),
        **key,
        **{part: {"rows": rows.rows, "about": rows.about} for part, rows in zip(PARTS, parts, strict=True)},
        "unseen": list(found.unseen),
        "norms": _norms(model, found.layers),
        "layers": [layer.as_json() for layer in found.layers],
    }
    turns = _turns(found, places, memory)
    unreached: dict[str, None] = {}
    with atomic_write(path) as file:
        os.fchmod(file.fileno(), 0o600)
        writer = SafetensorsWriter(file, layout, {"format": "pt", KEY: json.dumps(facts, ensure_ascii=False)})
        for i, turn in enumerate(turns):
            for part, rows in zip(PARTS, parts, strict=True):
                tell("moments", part=part, turn=i + 1, of=len(turns), rows=rows.rows)
                moments = collect(model, found, turn, rows.batches(), forward, real)
                unreached |= dict.fromkeys(place for place in turn if place not in moments)
                for place, own in moments.items():
                    writer.write(f"{part}/{place}", 0, stored(own.reshape(-1)))
        if unreached:
            raise _UnreachedError(list(unreached))


def _dtype(found: Survey, place: str) -> Any:
    import torch

    source = found.sources[place]
    return torch.float64 if source.wide or source.slot.unfold is None else torch.float32


def _turns(found: Survey, places: Sequence[str], memory: int) -> list[list[str]]:
    """Return the sources in groups whose sums, in float64, fit into `memory` bytes; a larger one has its own turn."""
    turns: list[list[str]] = [[]]
    used = 0
    for place in places:
        size = 8 * found.sources[place].elements
        if turns[-1] and used + size > memory:
            turns.append([])
            used = 0
        turns[-1].append(place)
        used += size
    return turns


def _norms(model: nn.Module, layers: Iterable[Layer]) -> dict[str, float]:
    """Return ‖W‖ of each layer's weight, by which a file is told apart from that of another model."""
    return {layer.weight[0]: float(model.get_parameter(layer.weight[0]).detach().double().norm()) for layer in layers}


class Moments:
    """A moments file, opened: `layers` with `of(part, place)`, read when asked for; `facts` is what it says of itself.

    Raises InputError for a file that is none, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SafetensorsFile(path)
        try:
            text = self._file.metadata.get(KEY)
            self.facts: dict[str, Any] = json.loads(text) if text else {}
            if self.facts.get("format") != FORMAT:
                raise InputError(f"{path} is no moments file of this version; make one with `negmerge moments CONFIG`")
            self.layers = tuple(layer_of(one) for one in self.facts["layers"])
        except BaseException:
            self.close()
            raise

    def of(self, part: str, place: str) -> Tensor:
        """Return the moments of the inputs at a place on forget or retain rows."""
        name = f"{part}/{place}"
        return self._file.read(name).reshape(self._file.shape(name))

    @property
    def unseen(self) -> tuple[str, ...]:
        """The matrices of the model whose inputs could not be seen."""
        return tuple(self.facts["unseen"])

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __enter__(self) -> "Moments":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_current(path: Path, key: Mapping[str, Any]) -> bool:
    """Return whether a file holds the moments of this model and these rows, taken by this code, and is whole."""
    if not path.exists():
        return False
    try:
        with Moments(path) as moments:
            return all(moments.facts.get(name) == value for name, value in {"code": code_hash(), **key}.items())
    except InputError:
        return False
