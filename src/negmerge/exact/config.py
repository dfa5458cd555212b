"""The config of a service that can forget exactly: clients, what each is trained by, and the base under them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from negmerge.errors import InputError
from negmerge.experiment.choices import ComputeConfig, Strict
from negmerge.experiment.config import BaseConfig
from negmerge.experiment.config_errors import explain
from negmerge.parsing import read_config
from negmerge.plug_in import PlugIn, beside
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.training import TrainSettings

ANY_SPLIT = {"fraction": 0.5}  # all training rows are clients' rows, so how they would be split is all one


class ClientsConfig(Strict):
    """Who the clients are, and how each is trained."""

    groups: Literal["all"] | list[str] = Field("all", description="groups of the training rows: authors, documents")
    train: TrainSettings = Field(description="training settings, the same for all")

    @field_validator("groups")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "all" and (not value or len(set(value)) < len(value)):
            raise ValueError(f"give all, or different names of groups, got {value}")
        return value


class ExactConfig(Strict):
    """A service: a base that saw no client's rows, and clients."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, dot, dash, underscore")
    task: PlugIn = Field("image-classification", description="what a row is, as in a run's config")
    model: ModelConfig
    data: DataConfig
    base: BaseConfig = Field(description="{pretrained: true} or {checkpoint: FILE}: one that saw no client's rows")
    clients: ClientsConfig
    seed: int = Field(0, ge=0, description="of the sign vector and of all batches")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where models run")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="layout, precision and compilation")
    workers: int = Field(1, ge=1, description="clients trained at a time")
    threads: int = Field(1, ge=1, description="threads of each; a part of what decides the last bits")

    @field_validator("data", mode="before")
    @classmethod
    def _any_split(cls, value: Any) -> Any:
        if isinstance(value, dict) and "forget" not in value and "split" not in value:
            return {**value, "forget": ANY_SPLIT}
        return value

    @model_validator(mode="after")
    def _untouched(self) -> "ExactConfig":
        if self.base.train is not None:
            raise ValueError(
                "base: train would train the base on clients' rows, which no sum takes out again; give "
                "{pretrained: true}, or {checkpoint: FILE} of a model that never saw them"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the config with every default written out, as plain JSON values."""
        return self.model_dump(mode="json")


def load_exact(path: Path) -> ExactConfig:
    """Read a service's YAML config. Raises InputError for what is not YAML, unknown keys and refused values."""
    raw = read_config(path, "name, model, data, base and clients")
    return check_exact({key: beside(value, path.parent) for key, value in raw.items()}, str(path))


def check_exact(raw: dict[str, Any], where: str = "config") -> ExactConfig:
    """Check a service's config given as plain values, with the settings of its source and family."""
    try:
        config = ExactConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(explain(error, where, ExactConfig)) from None
    preparing = preparing_of(config.model, config.task)
    family = preparing.family_of(config.model.family)
    for schema, settings, place in (
        (preparing.source_file(config.data.source).Settings, config.data.source_settings, "data"),
        (family.Settings, config.model.settings, "model"),
    ):
        try:
            schema(**settings)
        except ValidationError as error:
            raise InputError(explain(error, f"{where}: {place}", schema)) from None
    if config.base.pretrained and family.pretrained is None:
        raise InputError(f"{where}: base.pretrained: {config.model.family} has no weights of its own; give checkpoint")
    preparing.check_training(config.clients.train.augment, f"{where}: clients.train")
    return config
