"""The parts of a config that say how α is chosen, and what becomes of the buffers after a merge."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negmerge.errors import InputError
from negmerge.requests.rules import ForgetRule
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


class SelectionConfig(Strict):
    """How α is chosen."""

    objective: Literal["retain-floor", "match-reference", "match-holdout"] = Field(
        "retain-floor", description="what the best α is"
    )
    floor: float | None = Field(
        None, ge=0, le=1, description="share of the base's retain accuracy that must hold; 0.95 where it is heeded"
    )
    search: Literal["bracket", "grid"] = Field("bracket", description="bisection, or every point up to max_alpha")
    step: float = Field(0.05, gt=0, description="the lattice of α")
    max_alpha: float | None = Field(None, gt=0, description="1.0 for the grid, 64 for the bracket, unless given")
    floor_on: Literal["retain", "validation"] = Field(
        "retain", description="whose accuracy the floor holds: of a sample of the retain rows, or of validation rows"
    )
    retain_rows: int = Field(2000, ge=1, description="size of the fixed sample of them that selection sees")

    @model_validator(mode="after")
    def _floor(self) -> "SelectionConfig":
        if self.objective == "match-reference":
            if self.floor is not None or self.floor_on != "retain":
                raise ValueError("match-reference knows no floor: leave floor and floor_on out")
        elif self.floor is None:
            self.floor = 0.95
        return self

    @property
    def floor_share(self) -> float:
        """The floor as a number: 0 where none is heeded."""
        return self.floor or 0.0


def check_selection(objective: str, forget: ForgetRule | None, has_reference: bool, where: str) -> None:
    """Raise InputError for an objective that lacks what it compares with; `forget` is the rule, if there is one."""
    if objective == "match-reference" and not has_reference:
        raise InputError(
            f"{where}: selection: match-reference needs a reference: {{train: base}}, or {{checkpoint: FILE}}"
        )
    if objective == "match-holdout" and forget is not None and (forget.classes or forget.source):
        raise InputError(
            f"{where}: selection: match-holdout needs unseen rows that look like the forget rows, but to a base that "
            "knows them those of a class or source stand out; use retain-floor or match-reference"
        )
