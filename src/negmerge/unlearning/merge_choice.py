"""Which merge a row uses: the settings that all rows that merge something of their own share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negmerge.merging.merger import Merger


class MergeChoice(BaseModel):
    """A merge method and its settings, checked when they are given: before anything is trained.

    Raises InputError for a name that is no merge method, and for settings that the method does not take or refuses.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: str = Field("uniform", description="a merge method of `negmerge list methods`")
    settings: dict[str, Any] = Field(default_factory=dict, description="of that method")

    @model_validator(mode="after")
    def _merges(self) -> MergeChoice:
        Merger(self.method, self.settings)
        return self
