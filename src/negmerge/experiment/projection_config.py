"""The part of a config that says on which rows merged vectors are projected, and how strongly."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from negmerge.experiment.choices import Strict

NONE = "none"


class ProjectionConfig(Strict):
    """The retain projection: merged vectors stripped of what acts on retain inputs, before α is chosen."""

    rows: Literal["retain", "validation"] | Path = Field(
        "retain", description="rows whose inputs are protected: of a part, or a file of row numbers of the train table"
    )
    samples: int = Field(600, ge=2, description="size of the fixed samples of these rows and of the forget rows")
    strength: list[float] = Field(
        default_factory=lambda: [1.0, 10.0, 100.0], min_length=1, description="λ, searched together with α"
    )

    @field_validator("strength", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("strength")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not all(0 < one < math.inf for one in value) or len(set(value)) < len(value):
            raise ValueError(f"give different numbers above 0, got {value}")
        return sorted(value)


def checked_projection(value: Any) -> Any:
    """Return what may be a projection, before it is parsed. Raises ValueError that shows both forms."""
    if isinstance(value, Mapping):
        return ProjectionConfig(**value)  # at once, so that a mistake in it is not also called "not none"
    if value is None or value == NONE or isinstance(value, ProjectionConfig):
        return value
    raise ValueError("write none, or {rows: retain, samples: 600, strength: [1, 10, 100]} (or validation, or a file)")
