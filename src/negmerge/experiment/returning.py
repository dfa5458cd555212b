"""What comes back of a model while α is being chosen: short standard runs of two tests, on the rows of selection."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.evidence.protocol import check_capable, checked_settings, read_test
from negmerge.evidence.subject import Subject
from negmerge.selection import Position
from negmerge.tasks.task import RowOutputs, Task

TESTS: dict[str, dict[str, Any]] = {"relearning": {"factors": (1.0,)}, "offset": {}}  # with their settings
SEED = 1  # added to the run's: the draws are not those of the evidence at the end


@dataclass
class Returns:
    """The tests of one seed: base and Retrain are read once, and compared with whatever model is asked about.

    `parts` are those that selection sees: a sample of the request's own rows, and validation rows in the place of test.
    """

    task: Task
    parts: Mapping[str, Tensor]
    base: Path
    reference: Path
    seed: int
    kind: str
    device: str
    _memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_capable("relearning", self.task)

    def positions(self, checkpoint: Path) -> dict[str, Position]:
        """Return the position of a model on every test that can tell."""
        subject = Subject(
            self.task, self.parts, self.base, self.reference, checkpoint, self.seed + SEED, self.kind, self.device,
            memo=self._memo,
        )  # fmt: skip
        found = {}
        for name, settings in TESTS.items():
            if name == "offset" and not isinstance(self.task, RowOutputs):
                continue
            counted = read_test(name).run(subject, checked_settings(name, settings)).counted
            if counted.informative:
                assert counted.position is not None and counted.low is not None and counted.high is not None
                found[name] = Position(counted.position, counted.low, counted.high)
        self._memo.pop((checkpoint, "model"), None)
        return found


@dataclass
class ReturningAt:
    """What comes back at an α, each tested once: what was done before an interruption is read from `file`."""

    returns: Returns
    model_at: Callable[[float], dict[str, Tensor]]
    file: Path
    tell: Callable[[float, dict[str, float]], None]
    seconds: float = 0.0

    def __call__(self, alpha: float) -> dict[str, Position]:
        """Return the positions of θ(α), by test."""
        known: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        key = f"{alpha:.10g}"
        if key not in known:
            started = time.perf_counter()
            checkpoint = self.file.with_suffix(f".{key}.safetensors")
            write_state_dict(checkpoint, self.model_at(alpha))
            positions = self.returns.positions(checkpoint)
            checkpoint.unlink()
            found = {name: asdict(one) for name, one in positions.items()}
            known[key] = {"positions": found, "seconds": time.perf_counter() - started}
            write_bytes_atomic(self.file, json.dumps(known).encode())
            self.tell(alpha, {name: one.position for name, one in positions.items()})
        self.seconds = sum(one["seconds"] for one in known.values())
        return {name: Position(**one) for name, one in known[key]["positions"].items()}
