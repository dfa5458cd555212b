"""What the file of a test holds, and what a test returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from negmerge import registry
from negmerge.checking import MistakesError, unknown
from negmerge.errors import InputError
from negmerge.evidence.scale import Reading, with_controls
from negmerge.evidence.subject import Subject
from negmerge.tasks.task import Task, need

Weight = Literal["probe", "refutation", "description"]


class EvidenceSettings(BaseModel):
    """The settings of a test: typed, bounded, described; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoSettings(EvidenceSettings):
    """A test without settings."""


@dataclass(frozen=True)
class Cost:
    """What a test takes: rows trained on, and rows that pass through a model once."""

    trained: int = 0
    evaluated: int = 0


@dataclass(frozen=True)
class Found:
    """What a test found: a reading for each variant, of which the worst counts, facts, and a line in plain words."""

    readings: tuple[Reading, ...]
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> Reading:
        """The reading that counts: of the informative ones that which lies furthest above its bar, else the first."""
        informative = [one for one in self.readings if one.informative]
        return max(informative, key=lambda one: (one.low or 0.0) - one.bar) if informative else self.readings[0]

    def beside(self, controls: Sequence["Found"]) -> "Found":
        """Return this with each reading beside those of further Retrains, if any; see `with_controls`."""
        if not controls:
            return self
        others = [one.readings for one in controls]
        readings = [with_controls(one, [other[i] for other in others]) for i, one in enumerate(self.readings)]
        return replace(self, readings=tuple(readings))


@dataclass(frozen=True)
class EvidenceTest:
    """What a test's file holds; SUMMARY and `run` must be there.

    `run(subject, settings)` returns what it found. `cost(settings, rows)` returns what that takes, `rows` being how
    many of each part are looked at. `WEIGHT` in the verdict: a "probe" looks for what was forgotten, and both of its
    answers count; a "refutation" counts only where it finds something; a "description" does not count. `REQUIRES` are
    the capabilities that a task must have, `COLUMNS` what it must be able to observe. `SEEDS`: it looks at the models
    of all seeds of a run (`subject.seeds`); further Retrains are then among these and no controls. `SHADOWS`: it has
    models made as the judged one was (`subject.shadows`), and looks at further Retrains itself. `against_unseen` is
    what is run where there is no Retrain, if the test can then take unseen rows of the same kind for position 0.
    """

    SUMMARY: str
    run: Callable[[Subject, Any], Found]
    cost: Callable[[Any, Mapping[str, int]], Cost]
    Settings: type[EvidenceSettings] = NoSettings
    WEIGHT: Weight = "probe"
    REFERENCE: str = ""
    REQUIRES: tuple[type, ...] = ()
    COLUMNS: tuple[str, ...] = ()
    against_unseen: Callable[[Subject, Any], Found] | None = None
    SEEDS: bool = False
    SHADOWS: bool = False

    @property
    def controlled(self) -> bool:
        """Whether further Retrains are read in the place of the model, each by a call of its own."""
        return not (self.SEEDS or self.SHADOWS)


def read_test(name: str) -> EvidenceTest:
    """Return what the file of a test holds. Raises InputError for an unknown name, and for a file that lacks a part."""
    return registry.read("evidence", name, EvidenceTest)


def checked_settings(name: str, settings: Mapping[str, Any]) -> EvidenceSettings:
    """Return the settings of a test. Raises InputError for a key that it does not take, and for a refused value."""
    schema = read_test(name).Settings
    wrong = [unknown(key, schema.model_fields) for key in settings if key not in schema.model_fields]
    if wrong:
        raise MistakesError(f"evidence: {name}", wrong)
    try:
        return schema(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"evidence: {name}: {where}: {first['msg']}") from None


def check_capable(name: str, task: Task) -> None:
    """Raise InputError where a test needs a capability or a column that the task does not have."""
    test = read_test(name)
    for capability in test.REQUIRES:
        need(task, capability, f"evidence: {name}")
    for column in test.COLUMNS:
        if column not in task.COLUMNS:
            raise InputError(
                f"evidence: {name} needs the column {column!r}, which the task {task.NAME} does not observe; "
                f"leave {name} out"
            )
