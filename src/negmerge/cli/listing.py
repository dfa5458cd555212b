"""`negmerge list`: what is registered."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

INDENT = " " * 8  # below the summary, after the kind
IMAGES, TEXTS = "negmerge.tasks.image_classification", "negmerge.tasks.text_classification"
# The dataclass that says what the file of a kind holds.
CONTENTS = {
    "sources": f"{IMAGES}.source_file:SourceFile",
    "families": f"{IMAGES}.family:Family",
    "text-sources": f"{TEXTS}.source_file:SourceFile",
    "text-families": f"{TEXTS}.family:TextFamily",
    "question-sources": "negmerge.tasks.causal_lm.source_file:SourceFile",
    "tasks": "negmerge.tasks.preparing:Preparing",
    "scores": "negmerge.scores.plugged:ScoreFile",
    "evidence": "negmerge.evidence.protocol:EvidenceTest",
}


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
    own = {Kind.methods: _methods, Kind.evidence: _evidence}
    several = _summaries if kind in (Kind.scores, Kind.tasks) else _places
    listed = own.get(kind, partial(several, kind.value))
    for first, details in listed(names):
        print(f"{first[0]:<{width}}  {first[1]}", flush=True)
        for line in details:
            print(f"{'':<{width}}  {line}")


def _methods(names: Iterable[str]) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Yield name and summary of each method, those that merge first, and the lines below them."""
    from negmerge import registry
    from negmerge.merging.method import MERGE_NEEDS, load_method

    merging = registry.names("methods", "negmerge.merging.methods")
    for name in merging:
        method = load_method(name)
        lines = [f"needs {', '.join(MERGE_NEEDS)}; settings: {_pairs(method.defaults)}", method.reference]
        yield (name, f"{'merge':<6}  {method.summary}"), [INDENT + line for line in lines]
    from negmerge.experiment.methods import listed

    for name in names:
        if name in merging:
            continue
        info = listed(name)
        lines = [f"needs {', '.join(info.needs)}; settings: {_pairs(info.settings)}"]
        for key, values in info.search.items():
            lines.append(f"{key} is searched unless given: {', '.join(f'{value:g}' for value in values)}")
        yield (name, f"{info.kind:<6}  {info.summary}"), [INDENT + line for line in (*lines, info.reference)]


def _places(kind: str, names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each source or family, and the lines below them: what is known, and its settings."""
    wanted = ("SUMMARY", "Settings", "FACTS") if kind == Kind.sources else ("SUMMARY", "Settings")
    for name in names:
        found = _read(kind, name, *wanted)
        known = found.FACTS.details if kind == Kind.sources and found.FACTS else ()
        yield (name, found.SUMMARY), (*known, *_settings(found.Settings))


def _settings(schema: Any) -> Iterator[str]:
    """Yield a line for each setting: its name, its default or that it is needed, and what it is."""
    for name, field in schema.model_fields.items():
        default = "needed" if field.is_required() else field.get_default(call_default_factory=True)
        about = f": {field.description}" if field.description else ""
        yield f"{name} ({default}){about}"


def _summaries(kind: str, names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each score or task."""
    yield from (((name, _read(kind, name, "SUMMARY").SUMMARY), ()) for name in names)


def _evidence(names: Iterable[str]) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
    """Yield name and summary of each test, and the lines below them."""
    for name in names:
        test = _read("evidence", name, "SUMMARY", "Settings", "WEIGHT", "REFERENCE")
        settings = {key: field.default for key, field in test.Settings.model_fields.items()}
        lines = (f"{test.WEIGHT}; settings: {_pairs(settings)}", test.REFERENCE)
        yield (name, test.SUMMARY), [INDENT + line for line in lines if line]


def _read(kind: str, name: str, *wanted: str) -> Any:
    """Return an object with the names of a registered file that are wanted; a file of ours is not imported for it."""
    from negmerge.declared import declared

    return declared(kind, name, wanted, CONTENTS[kind])


def _pairs(settings: dict[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "none"
