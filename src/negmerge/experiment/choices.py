"""The parts of a config that say how α is chosen, and what becomes of the buffers after a merge."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from negmerge.errors import InputError
from negmerge.plug_in import PlugIn, short_name
from negmerge.selection import CANDIDATES, LASTING, MARGIN
from negmerge.tasks.compute import Compute


class Strict(BaseModel):
    """A part of a config: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Recalibrate(Strict):
    """Running statistics of batch normalisation, re-estimated after the merge, for each α."""

    recalibrate: Literal["retain", "forget"] = Field(description="whose images the statistics are taken from")
    rows: int = Field(2000, ge=2, description="size of the fixed sample of them")


Buffers = Literal["keep", "negate"] | Recalibrate


def checked_buffers(value: Any) -> Any:
    """Return what may be a policy, before it is parsed. Raises ValueError that shows both forms."""
    if isinstance(value, Mapping):
        return Recalibrate(**value)  # at once, so that a mistake in it is not also called "not keep"
    if value in ("keep", "negate") or isinstance(value, Recalibrate) or value is None:
        return value
    raise ValueError("write keep, negate, or {recalibrate: retain, rows: 2000} (or forget)")


def checked_request(value: Any) -> Any:
    """Return the free fields of a request as texts: numbers and dates as they are written.

    >>> checked_request({"reviewer": "N. N.", "ticket": 12, "phone": None})
    {'reviewer': 'N. N.', 'ticket': '12', 'phone': ''}
    """
    if not isinstance(value, Mapping):
        return value
    plain = (str, int, float, date)
    return {str(key): "" if one is None else str(one) if isinstance(one, plain) else one for key, one in value.items()}


def describe_buffers(buffers: Buffers) -> str:
    """Return a policy in words.

    >>> describe_buffers(Recalibrate(recalibrate="forget", rows=500))
    'recalibrate on 500 forget rows'
    """
    return buffers if isinstance(buffers, str) else f"recalibrate on {buffers.rows} {buffers.recalibrate} rows"


class ComputeConfig(Strict):
    """How models are computed, in training and in evaluation."""

    channels_last: bool | Literal["auto"] = Field(
        "auto", description="images and convolutions as [b, H, W, C] in memory; auto: on cpu and cuda"
    )
    precision: Literal["auto", "float32", "tf32", "bf16"] = Field(
        "auto", description="of products: tf32 on cuda only, bf16 by autocast; auto: tf32 on cuda, else float32"
    )
    compile: bool = Field(False, description="compile training's forward passes: minutes once, worth it in long runs")

    def on(self, device: str) -> Compute:
        """Return what holds on a device. Raises InputError for tf32 on another device than cuda."""
        precision = ("tf32" if device == "cuda" else "float32") if self.precision == "auto" else self.precision
        if precision == "tf32" and device != "cuda":
            raise InputError(f"compute: precision: tf32 is cuda's, and the device is {device}; use auto or float32")
        return Compute(
            device in ("cpu", "cuda") if self.channels_last == "auto" else self.channels_last, precision, self.compile
        )


Objective = Literal["retain-floor", "match-reference", "match-holdout", "lasting"]
OF_KIND: dict[str, Objective] = {"random": "match-holdout", "rows": "match-holdout"}  # of others: retain-floor
STOPS = "gone says where retain-floor and lasting stop: choose one of these, or leave gone out"


class SelectionConfig(Strict):
    """How α is chosen."""

    objective: Literal["auto", Objective] = Field(
        "auto",
        description="what the best α is; auto: match-holdout for rows drawn among others, retain-floor for a class or "
        "a source as a whole",
    )
    floor: float | None = Field(
        None, ge=0, le=1, description="share of the base's retain accuracy that must hold; 0.95 where it is heeded"
    )
    search: Literal["bracket", "grid", "paper"] = Field(
        "bracket",
        description="bisection, or every point up to max_alpha; paper: the first strict minimum of the grid, no margin",
    )
    step: float = Field(0.05, gt=0, description="the lattice of α")
    max_alpha: float | None = Field(None, gt=0, description="1.0 for the grid, 1024 for the bracket, unless given")
    margin: float = Field(
        MARGIN,
        ge=1,
        le=10,
        description="of retain-floor: deeper than the smallest best α, where that is free",
    )
    gone: float | None = Field(
        None,
        ge=0,
        lt=100,
        description="of retain-floor and lasting: the forget score, in percent, at and below which nothing is left to "
        "forget; 0.1 of probabilities and 0 of accuracies, unless given",
    )
    candidates: int = Field(
        CANDIDATES,
        ge=2,
        le=32,
        description="of lasting: how many α of a row are tested for what comes back, at most; projection strengths "
        "share them",
    )
    relearning: dict[str, Any] = Field(
        {},
        description="of lasting: settings of the test relearning while α is chosen, as {optimizer: adamw, lr: 0.001}; "
        "factors: [1.0] unless given",
    )
    floor_on: Literal["retain", "validation", "both"] | None = Field(
        None,
        description="whose accuracy the floor holds: of a sample of the retain rows (the default), or of validation "
        "rows in their place, or of both",
    )
    retain_rows: int = Field(2000, ge=1, description="size of the fixed sample of them that selection sees")
    forget_rows: int = Field(5000, ge=1, description="the same of the forget rows")
    match: list[str] | None = Field(
        None,
        min_length=1,
        description="of match-reference: the parts of the average gap that are compared, as [forget]; all unless given",
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys that are not given: results and keys are then those of runs that did not know them."""
        found: dict[str, Any] = serialize(self)
        return {key: value for key, value in found.items() if key not in ("match", "gone") or value is not None}

    @model_validator(mode="after")
    def _floor(self) -> "SelectionConfig":
        if self.match is not None and self.objective != "match-reference":
            raise ValueError("match names what match-reference compares: choose that objective, or leave match out")
        if self.gone is not None and self.objective.startswith("match"):
            raise ValueError(STOPS)
        if self.objective == "match-reference":
            if self.floor is not None or self.floor_on not in (None, "retain"):
                raise ValueError("match-reference knows no floor: leave floor and floor_on out")
            self.floor_on = "retain"
        elif self.objective != "auto":
            self.floor = 0.95 if self.floor is None else self.floor
            self.floor_on = self.floor_on or "retain"
        return self

    def resolved(self, kind: str, gone: float = 0.0) -> "SelectionConfig":
        """Return the rule with the objective that a kind of split asks for, where it is left to it.

        `gone` is that of the task, which counts where none is given.
        """
        found = self.model_dump()
        if self.objective == "auto":
            found["objective"] = OF_KIND.get(kind, "retain-floor")
        if self.gone is not None and found["objective"].startswith("match"):
            raise InputError(f"selection: {STOPS}; rows like these are forgotten by {found['objective']}")
        if gone and self.gone is None and not found["objective"].startswith("match"):
            found["gone"] = gone
        return SelectionConfig(**found)

    @property
    def floor_share(self) -> float:
        """The floor as a number: 0 where none is heeded."""
        return self.floor or 0.0

    @property
    def gone_at(self) -> float:
        """`gone` as a number: 0 where none is given."""
        return self.gone or 0.0

    @property
    def floor_scores(self) -> tuple[str, ...]:
        """The scores that the floor holds; `retain` is measured on validation rows where they stand in their place."""
        return ("retain", "validation") if self.floor_on == "both" else ("retain",)


def check_selection(objective: str, kind: str, has_reference: bool, where: str, unseen: bool | None = None) -> None:
    """Raise InputError for an objective that lacks what it compares with; `kind` is that of the split.

    `unseen` says, where groups are no classes, whether the base never saw the validation rows.
    """
    if objective == "match-reference" and not has_reference:
        raise InputError(
            f"{where}: selection: match-reference needs a reference: {{train: base}}, or {{checkpoint: FILE}}"
        )
    if objective == LASTING and not has_reference:
        raise InputError(
            f"{where}: selection: lasting compares what comes back with Retrain, so it needs a reference: "
            "{train: base}, or {checkpoint: FILE}; without one use retain-floor"
        )
    if objective != "match-holdout" or OF_KIND.get(kind) == "match-holdout" or unseen:
        return
    if unseen is False:
        raise InputError(
            f"{where}: selection: match-holdout needs validation rows that the base never saw: a share of unseen test "
            "rows (data.validation: {of: test}), rows outside of data.train_rows, or a base that is trained here; or "
            "use retain-floor"
        )
    raise InputError(
        f"{where}: selection: match-holdout needs unseen rows that look like the forget rows, but to a base that "
        "knows them those of a class or source stand out; use retain-floor or match-reference"
    )


class EvidenceTestConfig(BaseModel):
    """A test; other keys are settings of it."""

    model_config = ConfigDict(extra="allow")

    name: PlugIn = Field(description="a name from `negmerge list evidence`, or {file: PATH}")

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that belong to the test."""
        return dict(self.model_extra or {})


class EvidenceConfig(Strict):
    """Tests of the claim that a model forgot, made of one row on the first seed."""

    tests: list[EvidenceTestConfig] = Field(
        default_factory=list,
        description="names from `negmerge list evidence`, or {name: …} with settings; none if empty",
    )
    method: str | None = Field(None, description="the row that is judged: consensus or else the first, unless given")
    controls: int = Field(
        2, ge=0, le=20, description="further Retrains, trained where Retrain is, that no test may flag: the bar"
    )
    most: int = Field(1000, ge=20, description="rows of a part that a test looks at, at most: a seeded sample")

    @field_validator("tests", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        plain = (isinstance(item, str) or (isinstance(item, Mapping) and set(item) == {"file"}) for item in value)
        return [{"name": item} if short else item for item, short in zip(value, plain, strict=True)]

    @field_validator("tests")
    @classmethod
    def _distinct(cls, value: list[EvidenceTestConfig]) -> list[EvidenceTestConfig]:
        names = [short_name(item.name) for item in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice")
        return value
