"""What comes back of a model while α is being chosen: short standard runs of two tests, on the rows of selection."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.evidence.protocol import Cost, EvidenceSettings, check_capable, checked_settings, read_test
from negmerge.evidence.subject import Subject
from negmerge.selection import Position
from negmerge.tasks.task import RowOutputs, Task

RELEARNING: dict[str, Any] = {"factors": (1.0,)}  # settings, where the config has none
SEED = 1  # added to the run's: the draws are not those of the evidence at the end


def tests_for(task: Task, relearning: Mapping[str, Any]) -> dict[str, EvidenceSettings]:
    """Return the tests that are made of a task's models while α is chosen: offset only where rows have outputs.

    `relearning` are settings of that test. Raises InputError for one that it does not take.
    """
    found = {"relearning": checked_settings("relearning", {**RELEARNING, **relearning})}
    return {**found, "offset": checked_settings("offset", {})} if isinstance(task, RowOutputs) else found


def cost_of_curve(tests: Mapping[str, EvidenceSettings], rows: Mapping[str, int]) -> Cost:
    """Return what the tests of one model take; `rows` are how many of each part selection sees, as tests count them.

    Those of base and Retrain take as much, each once for a seed.
    """
    costs = [read_test(name).cost(settings, rows) for name, settings in tests.items()]
    return Cost(sum(cost.trained for cost in costs) // 3, sum(cost.evaluated for cost in costs) // 3)


@dataclass
class Returns:
    """The tests of one seed: base and Retrain are read once, and compared with whatever model is asked about.

    `parts` are those that selection sees: a sample of the request's own rows, and validation rows in the place of test.
    `relearning` are settings of that test.
    """

    task: Task
    parts: Mapping[str, Tensor]
    base: Path
    reference: Path
    seed: int
    kind: str
    device: str
    relearning: Mapping[str, Any] = field(default_factory=dict)
    _memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    _tests: dict[str, EvidenceSettings] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_capable("relearning", self.task)
        self._tests = tests_for(self.task, self.relearning)

    def positions(self, checkpoint: Path) -> dict[str, Position]:
        """Return the position of a model on every test that can tell."""
        subject = Subject(
            self.task, self.parts, self.base, self.reference, checkpoint, self.seed + SEED, self.kind, self.device,
            memo=self._memo,
        )  # fmt: skip
        found = {}
        for name, settings in self._tests.items():
            counted = read_test(name).run(subject, settings).counted
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
