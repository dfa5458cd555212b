"""A recipe: a merge written as a sum, θ = base + Σ ±α · w ⊙ method(members − origin), checked before it is run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from negmerge.checking import MistakesError, checked, mistakes_of, shown
from negmerge.checkpoints.plain_file import read_small
from negmerge.errors import InputError
from negmerge.merging.layer_change import STRENGTH, Project
from negmerge.merging.mergekit import from_mergekit, is_mergekits
from negmerge.merging.merger import Merger
from negmerge.merging.output.kept_recipe import HEAD
from negmerge.merging.pool.opening import AnyPath, term_files
from negmerge.merging.request import wrong_arguments
from negmerge.merging.writing import TermRequest
from negmerge.parsing import dump_yaml, parse_yaml

LIMIT = 10_000_000  # bytes of a recipe that are believed
BARE_MINUS = re.compile(r"^\s*(?:-\s+)?sign:\s*-\s*(#.*)?$", re.MULTILINE)


class TermSchema(BaseModel):
    """One summand of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    members: Sequence[AnyPath] = Field(description="the paths of the fine-tuned models")
    origin: AnyPath | None = Field(None, description="the model that they were trained from; the base unless given")
    method: str = Field("consensus", description="a merge method of `negmerge list methods`")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="of the method")
    sign: Literal["+", "-"] = Field("-", description="added to the base, or subtracted, in quotes")
    alpha: float = Field(1.0, description="scale of the term")
    weights: AnyPath | None = Field(None, description="a file of importance weights; numbers for members are settings")
    seed: int = Field(0, description="of the methods that draw at random")
    project: Mapping[str, Any] | None = Field(None, description="the retain projection: {moments: FILE, strength: 10}")


class ProjectSchema(BaseModel):
    """How a vector is projected."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    moments: AnyPath = Field(description="a file of `negmerge moments`")
    strength: float = Field(STRENGTH, ge=0, description="of the projection, λ")


class RecipeSchema(BaseModel):
    """A recipe; its terms are checked one by one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    base: AnyPath = Field(description="the path of the original model")
    terms: Sequence[Any] = Field(description="the summands")
    include: Sequence[str] = Field((), description="regular expressions of tensor names")
    exclude: Sequence[str] = Field((), description="regular expressions of tensor names")
    dtype: str = "base"
    buffers: str = "keep"
    max_shard_size: str | None = Field(None, description="a size such as 500MB")
    project: Mapping[str, Any] | None = Field(None, description="the retain projection of all terms")


def check_recipe(content: Mapping[str, Any], where: str = "recipe", **options: Any) -> dict[str, Any]:
    """Return the arguments of `MergeRequest` that a recipe and further options stand for.

    Raises MistakesError with a line for each mistake.
    """
    if is_mergekits(content):
        content = from_mergekit(content, where)
    wrong: list[str] = []
    try:
        shared = checked(RecipeSchema, content).model_dump(exclude={"terms"})
    except MistakesError as error:
        wrong += error.lines
        shared = {key: content[key] for key in RecipeSchema.model_fields if key in content and key != "terms"}
    project, refused = _check_project(shared.pop("project", None))
    in_words = "\n".join(wrong)
    arguments = {key: value for key, value in {**shared, **options}.items() if f"{key} must be " not in in_words}
    wrong += [*wrong_arguments(arguments), *refused]
    given = content.get("terms")
    terms: list[TermRequest] = []
    if isinstance(given, list | tuple):
        if not given:
            wrong.append("terms is empty: give at least one")
        for number, term in enumerate(given, start=1):
            try:
                terms.append(_check_term(term, project))
            except InputError as error:
                wrong += [f"term {number}: {line}" for line in mistakes_of(error)]
    if wrong:
        raise MistakesError(where, wrong)
    recipe = RecipeSchema(**shared, terms=())  # its projection stands in the terms
    paths = {"base": Path(recipe.base), "output": Path(options["output"])}
    return {**shared, **options, **paths, "terms": terms, "recipe": recipe_text(recipe, terms)}


def recipe_text(recipe: RecipeSchema, terms: Sequence[TermRequest]) -> bytes:
    """Return the YAML of a recipe in its one form: equal recipes are equal bytes, however they were written."""
    written: dict[str, Any] = {"base": os.fspath(recipe.base), "terms": [_term_facts(term) for term in terms]}
    for key in ("include", "exclude", "dtype", "buffers", "max_shard_size"):
        value = getattr(recipe, key)
        if value != RecipeSchema.model_fields[key].default:
            written[key] = value if isinstance(value, str) else list(value)
    return HEAD + dump_yaml(written).encode(errors="surrogateescape")


def _check_project(value: Any) -> tuple[Project | None, list[str]]:
    """Return a projection that is asked for, and a line for each mistake."""
    if not isinstance(value, Mapping):  # of another kind it was refused already
        return None, []
    try:
        found = checked(ProjectSchema, value)
    except MistakesError as error:
        return None, [f"project: {line}" for line in error.lines]
    return Project(Path(found.moments), float(found.strength)), []


def _check_term(term: Any, shared: Project | None) -> TermRequest:
    """Return a term; `shared` is the projection of all. Raises MistakesError with a line for each mistake."""
    if not isinstance(term, Mapping):
        raise InputError(f"it must be a mapping with members, method, alpha, …, got {shown(term)}")
    wrong: list[str] = []
    values = dict(term)
    try:
        checked(TermSchema, values)
    except MistakesError as error:
        wrong = error.lines
        values = {key: value for key, value in values.items() if _is_sound(key, value)}
    found = TermSchema.model_construct(**{"members": (), **values})
    own, refused = _check_project(found.project)
    wrong += refused
    if found.project is not None and shared is not None:
        wrong.append("project stands here and in the recipe; write it in one of the two")
    if "members" in values and not found.members:
        wrong.append("members is empty: give at least one fine-tuned model")
    try:
        merger = Merger(found.method, found.settings, found.seed)
        if found.members:
            merger.check_members(len(found.members))
    except InputError as error:
        raise MistakesError("", [*wrong, *mistakes_of(error)]) from None
    if wrong:
        raise MistakesError("", wrong)
    files = term_files(found.members, found.origin, found.weights)
    return TermRequest(files, merger, float(found.alpha), found.sign == "+", own or shared)


def _is_sound(key: str, value: Any) -> bool:
    """Whether a key of a term has a value of its kind, so that the rest of the term can be checked as well."""
    try:
        checked(TermSchema, {"members": (), key: value})
    except MistakesError:
        return False
    return True


def _term_facts(term: TermRequest) -> dict[str, Any]:
    files, merger = term.files, term.merger
    return {
        "members": [str(member) for member in files.members],
        **({} if files.origin is None else {"origin": str(files.origin)}),
        "method": merger.name,
        **({"settings": dict(merger.settings)} if merger.settings else {}),
        "sign": "+" if term.add else "-",
        "alpha": term.alpha,
        **({} if files.weights is None else {"weights": str(files.weights)}),
        **({"seed": merger.seed} if merger.seed else {}),
        **({} if term.project is None else {"project": _project_facts(term.project)}),
    }


def _project_facts(project: Project) -> dict[str, Any]:
    return {"moments": str(project.moments), "strength": project.strength}


def read_recipe(path: Path) -> tuple[Mapping[str, Any], str]:
    """Return what a recipe's file holds. Raises InputError for one that is no YAML mapping."""
    if not path.exists():
        raise InputError(f"{path}: no such file; give a recipe that exists")
    text = read_small(path, LIMIT).decode(errors="surrogateescape")
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        if BARE_MINUS.search(text):
            reason = 'YAML takes a bare minus for a list; write sign: "-"'
        raise InputError(f"{path}{place} is not YAML: {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} is no recipe, which is a mapping with base and terms")
    return content, str(path)
