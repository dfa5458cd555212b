"""`negmerge list`: what is registered."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import partial
from types import ModuleType
from typing import Annotated, Any

import typer

INDENT = " " * 8  # below the summary, after the kind


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    sources = "sources"
    families = "families"
    scores = "scores"
    evidence = "evidence"
    text_sources = "text-sources"
    text_families = "text-families"
    question_sources = "question-sources"
    tasks = "tasks"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List methods (those that merge first), sources, families, further scores, tests of evidence, or tasks."""
    from negmerge import registry

    names = registry.names(kind.value)
    width = max(len(name) for name in names)
    own = {Kind.methods: _methods, Kind.scores: _scores, Kind.evidence: _evidence, Kind.tasks: _tasks}
    listed = own.get(kind, partial(_places, kind.value))
    for first, details in listed(names):
        print(f"{first[0]:<{width}}  {first[1]}", flush=True)
        for line in details:
            print(f"{'':<{width}}  {line}")


def _methods(names: Iterable[str]) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Yield name and summary of each method, those that merge first, and the lines below them; without torch."""
    from negmerge import registry
    from negmerge.merging.method import MERGE_NEEDS, load_method

    merging = registry.names("methods", "negmerge.merging.methods")
    for name in merging:
        method = load_method(name)
        lines = [f"needs {', '.join(MERGE_NEEDS)}; settings: {_pairs(method.defaults)}", method.reference]
        yield (name, f"{'merge':<6}  {method.summary}"), [INDENT + line for line in lines]
    from negmerge.experiment.methods import describe

    for name in names:
        if name in merging:
            continue
        info = describe(name)
        lines = [f"needs {', '.join(info.needs)}; settings: {_pairs(info.settings)}"]
        for key, values in info.search.items():
            lines.append(f"{key} is searched unless given: {', '.join(f'{value:g}' for value in values)}")
        yield (name, f"{info.kind:<6}  {info.summary}"), [INDENT + line for line in (*lines, info.reference)]


def _places(kind: str, names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each source or family, and the lines below them: what is known, and its settings."""
    from negmerge.tasks.causal_lm import preparing as questions
    from negmerge.tasks.image_classification import preparing as images
    from negmerge.tasks.image_classification.source_file import SourceFile
    from negmerge.tasks.text_classification import preparing as texts

    preparing: ModuleType = {"text": texts, "question": questions}.get(kind.partition("-")[0], images)
    for name in names:
        found = preparing.source_file(name) if kind.endswith("sources") else preparing.family_of(name)
        known = found.FACTS.details if isinstance(found, SourceFile) and found.FACTS else ()
        yield (name, found.SUMMARY), (*known, *_settings(found.Settings))


def _settings(schema: Any) -> Iterator[str]:
    """Yield a line for each setting: its name, its default or that it is needed, and what it is."""
    for name, field in schema.model_fields.items():
        default = "needed" if field.is_required() else field.get_default(call_default_factory=True)
        about = f": {field.description}" if field.description else ""
        yield f"{name} ({default}){about}"


def _scores(names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each score."""
    from negmerge.scores.plugged import score_file

    yield from (((name, score_file(name).SUMMARY), ()) for name in names)


def _tasks(names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each task."""
    from negmerge import registry
    from negmerge.tasks.preparing import Preparing

    yield from (((name, registry.read("tasks", name, Preparing).SUMMARY), ()) for name in names)


def _evidence(names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each test, and the lines below them."""
    from negmerge.evidence.protocol import read_test

    for name in names:
        test = read_test(name)
        settings = {key: field.default for key, field in test.Settings.model_fields.items()}
        lines = (f"{test.WEIGHT}; settings: {_pairs(settings)}", test.REFERENCE)
        yield (name, test.SUMMARY), [INDENT + line for line in lines if line]


def _pairs(settings: dict[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "none"
