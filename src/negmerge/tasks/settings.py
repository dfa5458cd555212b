"""The parts of a config that image classification reads: where images come from, and which model tells them apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negmerge.plug_in import PlugIn
from negmerge.requests.rules import ForgetRule, RetainRule, ValidationRule
from negmerge.tasks.two_sources import side_by_side


class DataConfig(BaseModel):
    """Where images come from and how they are split; other keys are settings of the source."""

    model_config = ConfigDict(extra="allow")

    source: PlugIn = Field(description="a name from `negmerge list sources`, or {file: PATH}")
    forget: ForgetRule | None = Field(None, description="what to forget; not needed where split is given")
    retain: RetainRule | None = Field(None, description="narrows the rows that may be used as retain data")
    validation: ValidationRule = Field(default_factory=ValidationRule, description="how validation rows are taken")
    train_rows: tuple[int, int] | None = Field(None, description="[start, stop]: the rows that are training data")
    split: Path | None = Field(None, description="a split file that fixes every row")
    seed: int = Field(0, ge=0, description="the seed of the split, the same for every seed of the run")

    @model_validator(mode="before")
    @classmethod
    def _two_sources(cls, values: Any) -> Any:
        return side_by_side(values, cls.model_fields) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _one_way(self) -> "DataConfig":
        if (self.forget is None) == (self.split is None):
            raise ValueError("give either forget (a rule) or split (a file)")
        if self.split is not None and (self.retain or self.train_rows or "validation" in self.model_fields_set):
            raise ValueError("split fixes every row: leave out retain, train_rows and validation")
        return self

    def holds_out_unseen(self, trained_here: bool) -> bool:
        """Whether the base never saw the validation rows: it is trained here without them, or they are named so."""
        return trained_here or self.train_rows is not None or self.validation.of == "test"

    @property
    def source_settings(self) -> dict[str, Any]:
        """The keys that belong to the source."""
        return dict(self.model_extra or {})


class ModelConfig(BaseModel):
    """The family of the model; other keys are settings of the family."""

    model_config = ConfigDict(extra="allow")

    family: PlugIn = Field(description="a name from `negmerge list families`, or {file: PATH}")

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that belong to the family."""
        return dict(self.model_extra or {})


def source_names(data: DataConfig) -> list[str]:
    """Return the sources of a run, that of the forget set behind the other."""
    second = data.forget.source if data.forget is not None else None
    return [data.source] if second is None else [data.source, second]
