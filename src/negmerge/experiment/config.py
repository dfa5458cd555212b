"""The config of an experiment: YAML, checked to the last key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from negmerge.checking import MistakesError, mistakes_of
from negmerge.errors import InputError
from negmerge.experiment.choices import (
    Buffers,
    ComputeConfig,
    EvidenceConfig,
    Recalibrate,
    SelectionConfig,
    Strict,
    check_selection,
    checked_buffers,
    checked_request,
)
from negmerge.experiment.config_errors import explain
from negmerge.experiment.projection_config import ProjectionConfig, checked_projection
from negmerge.merging.pool.selecting import check_patterns
from negmerge.parsing import parse_change, read_config
from negmerge.plug_in import PlugIn, beside, short_name
from negmerge.requests.split_files import kind_in_file
from negmerge.scores.plugged import score_file
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.training import TrainSettings
from negmerge.training.adapters import AdapterSettings
from negmerge.training.pool import RANK, Member, expand_grid

__all__ = ["Buffers", "Config", "Recalibrate", "SelectionConfig", "check_config", "load_config"]


class BaseConfig(Strict):
    """The model to unlearn: trained here, or loaded."""

    train: TrainSettings | None = Field(None, description="train it on retain and forget rows")
    checkpoint: Path | None = Field(None, description="a checkpoint with the family's tensor names")
    pretrained: bool = Field(False, description="the weights that the family comes with (clip)")

    previous: Path | None = Field(None, description="the run that made the checkpoint: its record is an input of this")

    @model_validator(mode="after")
    def _one(self) -> "BaseConfig":
        if (self.train is not None) + (self.checkpoint is not None) + self.pretrained != 1:
            raise ValueError("give either train or checkpoint, or pretrained: true for a family with weights (clip)")
        return self


class ReferenceConfig(Strict):
    """The Retrain model: trained on the retain rows alone, or loaded."""

    train: TrainSettings | Literal["base"] | None = Field(None, description="settings, or base for those of base")
    checkpoint: Path | None = Field(None, description="a checkpoint of a model that never saw the forget rows")

    @model_validator(mode="after")
    def _one(self) -> "ReferenceConfig":
        if (self.train is None) == (self.checkpoint is None):
            raise ValueError("give either train or checkpoint, or write `reference: none`")
        return self


class PoolConfig(Strict):
    """The fine-tunings on the forget rows: one for every combination of the grid."""

    train: dict[str, Any] = Field(default_factory=dict, description="training settings that all members share")
    grid: dict[str, list[Any]] = Field(description="training setting → its values")
    adapter: AdapterSettings | None = Field(
        None, description="members are LoRA adapters from one draw of A: {r, alpha, targets}; whole models if unset"
    )
    leave_one_out: bool = Field(False, description="choose α again without each member, for the consensus row")

    def members(self) -> list[Member]:
        """Return the members. Raises InputError as `expand_grid` does, and for ranks where none is an adapter."""
        found = expand_grid(self.train, self.grid)
        self.adapter_of(found[0])
        return found

    def adapter_of(self, member: Member) -> AdapterSettings | None:
        """Return what a member's adapter is made of, None for a whole model. Raises InputError for a rank of one."""
        if member.rank is not None and self.adapter is None:
            raise InputError(f"grid: {RANK} is the rank of adapters; give pool.adapter, or leave it out of the grid")
        return self.adapter and self.adapter.model_copy(update={"r": member.rank or self.adapter.r})


class MethodConfig(BaseModel):
    """One row of the result table; other keys are settings of the method."""

    model_config = ConfigDict(extra="allow")

    name: PlugIn = Field(description="a name from `negmerge list methods`, or {file: PATH}")
    label: str = Field("", description="the row's name, unless the method's own")
    buffers: Buffers | None = Field(None, description="as `buffers` of the config, for this row of a merging method")
    projection: ProjectionConfig | Literal["none"] | None = Field(
        None, description="this row of a merging method is projected; none: neither it nor a row beside it"
    )
    seeds: int | None = Field(
        None, ge=1, description="on how many of the run's seeds, from the first; all unless given"
    )
    include: list[str] = Field(default_factory=list, description="a merging row's tensors: names with such a pattern")
    exclude: list[str] = Field(default_factory=list, description="and those that a merging row leaves as they are")

    _check_buffers = field_validator("buffers", mode="before")(checked_buffers)
    _check_projection = field_validator("projection", mode="before")(checked_projection)

    @property
    def projected(self) -> ProjectionConfig | None:
        """How the row's vector is projected; None where it is not."""
        return self.projection if isinstance(self.projection, ProjectionConfig) else None

    @property
    def row(self) -> str:
        """The name of the row."""
        return self.label or short_name(self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that belong to the method."""
        return dict(self.model_extra or {})


class EvaluationConfig(Strict):
    """What is measured at the end."""

    membership: list[Literal["svc-confidence"]] = Field(
        ["svc-confidence"], description="membership attacks; an empty list for none"
    )
    scores: list[PlugIn] = Field(
        default_factory=list, description="further scores: names from `negmerge list scores`, or {file: PATH}"
    )
    most: int | None = Field(None, ge=1, description="seeded samples of so many retain and forget rows; all if unset")
    answers: int = Field(
        0,
        ge=0,
        le=100,
        description="so many forget and retain questions with what each model answers, in results and on the page, "
        "which then hold their content; of tasks that answer in words",
    )


class RunConfig(Strict):
    """What the stages of a run read, whatever the task."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, dot, dash, underscore")
    request: dict[str, str] = Field(
        default_factory=dict, description="who asked, why, who reviews: free fields, printed on the page as they are"
    )
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1, description="one run for each")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where models run")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="layout, precision and compilation")
    workers: int | None = Field(
        None,
        ge=1,
        description="models trained at a time, in processes of their own; unless given all cores, one a card",
    )
    threads: int | None = Field(None, ge=1, description="threads of base, reference and evaluation; all cores if unset")
    base: BaseConfig
    reference: ReferenceConfig | None = None
    pool: PoolConfig
    buffers: Buffers = Field("keep", description="running statistics: the base's, merged like weights, or re-estimated")
    projection: ProjectionConfig | Literal["none"] | None = Field(
        None, description="a second row for every merging method, with its vector projected"
    )
    methods: list[MethodConfig] = Field(min_length=1)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    evidence: EvidenceConfig = Field(default_factory=EvidenceConfig)

    _check_buffers = field_validator("buffers", mode="before")(checked_buffers)

    _check_projection = field_validator("projection", mode="before")(checked_projection)

    _check_request = field_validator("request", mode="before")(checked_request)

    @field_validator("reference", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("methods", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"name": item} if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _both_rows(self) -> "RunConfig":
        """Give every merging method that says nothing of projection a row beside it, with the run's projection."""
        if isinstance(self.projection, ProjectionConfig):
            self.methods = self._distinct(with_projected_rows(self.methods, self.projection))
        return self

    @field_validator("seeds", "methods")
    @classmethod
    def _distinct(cls, value: list[Any]) -> list[Any]:
        names = [item.row if isinstance(item, MethodConfig) else item for item in value]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice; give a method a label of its own")
        return value

    def buffers_of(self, method: MethodConfig) -> Buffers:
        """Return the policy of a row: its own, or that of the config; `keep` where it would negate and is projected."""
        own = self.buffers if method.buffers is None else method.buffers
        return "keep" if own == "negate" and method.projected is not None else own  # its vector has no statistics

    def scratch_settings(self) -> TrainSettings | None:
        """Return the settings by which the run trains a model from scratch: those of the base, else the reference."""
        own = self.reference.train if self.reference else None
        return self.base.train or (own if isinstance(own, TrainSettings) else None)

    def resolved(self) -> dict[str, Any]:
        """Return the config with every default written out, as plain JSON values."""
        return self.model_dump(mode="json")


class Config(RunConfig):
    """A whole experiment: a run, and the data and the model that its task is made of."""

    task: PlugIn = Field(
        "image-classification", description="what a row is: a name from `negmerge list tasks`, or {file: PATH}"
    )
    model: ModelConfig
    data: DataConfig


def with_projected_rows(methods: Sequence[MethodConfig], projection: ProjectionConfig) -> list[MethodConfig]:
    """Return the methods, each merging one that says nothing of projection twice: as it is, and projected.

    The projected row is called by the other's name and the word "projected".
    """
    from negmerge.experiment.methods import describe

    found: list[MethodConfig] = []
    for method in methods:
        try:
            merges = describe(method.name).kind != "train"
        except InputError:  # refused by its name later
            merges = False
        if method.projection is not None or not merges:
            found.append(method)
            continue
        found.append(method.model_copy(update={"projection": "none"}))
        found.append(method.model_copy(update={"projection": projection, "label": f"{method.row} projected"}))
    return found


def load_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """Read a YAML config, apply `extends` and then `KEY=VALUE` changes (dotted keys), and check it.

    In a config that extends another, null takes a key of the other away. A change to a mapping replaces it:
    `base={checkpoint: FILE}`. The path of a plug-in (`{file: PATH}`) is seen from the config that writes it, as
    `beside` says, other paths from the current folder. Raises InputError for what is not YAML, and for unknown or
    misspelt keys and refused values, each named with its place.
    """
    raw = _read(path, ())
    wrong: list[str] = []
    for change in changes:
        try:
            apply_change(raw, change)
        except InputError as error:
            wrong += mistakes_of(error)
    if wrong:
        raise MistakesError("", wrong)
    return check_config(raw, str(path))


def check_config(raw: Mapping[str, Any], where: str = "config") -> Config:
    """Check a config given as plain values, with the settings of its source, family and methods."""
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise InputError(explain(error, where, Config)) from None
    forget, preparing = config.data.forget, preparing_of(config.model, config.task)
    source_file, family_of = preparing.source_file, preparing.family_of
    parts: list[tuple[Callable[[str], Any], str, dict[str, Any], str]] = [
        (source_file, config.data.source, config.data.source_settings, "data"),
        (family_of, config.model.family, config.model.settings, "model"),
    ]
    if forget is not None and forget.source is not None:
        parts.append((source_file, forget.source, forget.source_settings, "data.forget"))
    for read, name, settings, place in parts:
        schema = read(name).Settings
        try:
            schema(**settings)
        except ValidationError as error:
            raise InputError(explain(error, f"{where}: {place} ({name})", schema)) from None
    if config.base.pretrained and family_of(config.model.family).pretrained is None:
        raise InputError(f"{where}: base.pretrained: {config.model.family} has no weights of its own; give train")
    if config.model.settings.get("linearised") and not config.base.pretrained:
        raise InputError(
            f"{where}: a linearised model is expanded at its own weights: write base: {{pretrained: true}}"
        )
    _check_methods(config, where)
    from negmerge.experiment.evidence_checks import check_evidence, check_lasting

    for name in config.evaluation.scores:
        score_file(name)
    check_evidence(config.evidence, [method.row for method in config.methods], where)
    members = config.pool.members()
    for place, augment in _augmentations(config, members):
        preparing.check_training(augment, f"{where}: {place}")
    everywhere = [m.name for m in config.methods if m.seeds is None]
    if config.pool.leave_one_out and (len(members) < 3 or "consensus" not in everywhere):
        raise InputError(
            f"{where}: pool.leave_one_out needs the method consensus (on all seeds) and at least 3 members"
        )
    if config.reference and config.reference.train == "base" and config.base.train is None:
        raise InputError(f"{where}: reference: train: base needs base.train; give settings or a checkpoint")
    if forget is not None and forget.hardest is not None and config.scratch_settings() is None:
        raise InputError(
            f"{where}: data.forget.hardest trains models from scratch to rank the rows; give base.train or "
            "reference.train"
        )
    kind = forget.kind if forget is not None else kind_in_file(config.data.split)  # type: ignore[arg-type]
    config.selection = config.selection.resolved(kind, preparing.GONE)
    unseen = None if preparing.LABELLED else config.data.holds_out_unseen(config.base.train is not None)
    check_selection(config.selection.objective, kind, config.reference is not None, where, unseen)
    check_lasting(config.selection, where)
    return config


def _check_methods(config: Config, where: str) -> None:
    """Raise InputError for settings that a method of the config does not take, with a line for each."""
    from negmerge.experiment.methods import check_origin, check_settings, describe

    wrong: list[str] = []
    for method in config.methods:
        try:
            check_settings(method.name, method.settings)
        except InputError as error:
            wrong += mistakes_of(error)
    if wrong:
        raise MistakesError(where, wrong)
    for method in config.methods:
        check_origin(method.name, method.settings, config.base.train is not None, f"{where}: method {method.row}")
        tensors = [*method.include, *method.exclude]
        given = {"buffers": method.buffers, "projection": method.projected, "include and exclude": tensors}
        unmerged = [key for key, value in given.items() if value and describe(method.name).kind == "train"]
        if unmerged:
            raise InputError(f"{where}: method {method.row} does not merge: leave out {unmerged[0]}")
        check_patterns(method.include, method.exclude, f"{where}: method {method.row}")
        if describe(method.name).scratch and not (method.settings.get("train") or config.scratch_settings()):
            raise InputError(
                f"{where}: {method.name} needs training settings: {{name: {method.name}, train: …}}, or base.train"
            )


def _augmentations(config: Config, members: Sequence[Member]) -> Iterator[tuple[str, str]]:
    """Yield the place and the value of every augmentation in a config, which only its task can judge."""
    originals = {"base.train": config.base.train, "reference.train": config.reference and config.reference.train}
    for place, trained in originals.items():
        if isinstance(trained, TrainSettings):
            yield place, trained.augment
    yield from ((f"pool member {member.name}", member.settings.augment) for member in members)
    for method in config.methods:
        for settings in (method.settings, method.settings.get("train")):
            found = (settings.get("augment") if isinstance(settings, Mapping) else None) or "none"
            for one in found if isinstance(found, list) else [found]:
                yield f"method {method.row}", str(one)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    raw = read_config(path, "name, model, data, base, pool and methods")
    ground = raw.pop("extends", None)
    raw = {key: beside(value, path.parent) for key, value in raw.items()}
    if ground is None:
        return raw
    parent = path.parent / str(ground)
    if parent.resolve() in (*seen, path.resolve()):
        raise InputError(f"{path} extends itself by way of {ground}")
    return _overlay(_read(parent, (*seen, path.resolve())), raw)


def _overlay(ground: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(ground)
    for key, value in top.items():
        below = merged.get(key)
        if value is None and key in merged:
            del merged[key]  # null takes a key of the ground away
            continue
        merged[key] = _overlay(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def apply_change(raw: dict[str, Any], change: str) -> None:
    """Make a change KEY=VALUE (dotted keys) to a config, in place. Raises InputError for what is no change."""
    key, value = parse_change(change, "[^=]+", "KEY=VALUE, for example --set pool.train.epochs=5")
    *parents, last = key.split(".")
    place: Any = raw
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise InputError(f"--set {change}: {parent!r} is not a mapping; set it as a whole")
    place[last] = value
