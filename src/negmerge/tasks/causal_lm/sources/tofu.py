"""TOFU: questions and answers about two hundred authors who do not exist, twenty for each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from negmerge.errors import InputError
from negmerge.tasks.causal_lm.questions import (
    Answer,
    QuestionSet,
    QuestionSource,
    question_set,
    question_source,
    with_others,
)
from negmerge.tasks.hub_data import HubSettings, fetch
from negmerge.tasks.text_classification.tables import Table, read_table

SUMMARY = "TOFU (arXiv 2401.06121): questions about invented authors; groups are “author 0” to “author 199”"
EACH, AUTHORS = 20, 200
PERTURBED = ("forget10_perturbed", "retain_perturbed")  # files with other answers to some of the questions
FURTHER = {"real_authors": "real_authors_perturbed", "world_facts": "world_facts_perturbed"}


class Settings(BaseModel):
    """Where it is, and which authors a model may be trained on."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        "locuslab/TOFU", min_length=1, description="a folder with full.json and the other files, or the hub id"
    )
    authors: tuple[int, int] = Field(
        (0, 190), description="[start, stop]: the authors of the train table; forget10 is 180 to 200"
    )
    unseen: tuple[int, int] = Field((190, 200), description="[start, stop]: the authors of the test table")
    further: bool = Field(True, description="whether questions on real authors and world facts are scored too")


def load(settings: Settings) -> QuestionSource:
    """Return the questions about the authors, and on real authors and world facts.

    Some of the questions have a paraphrased answer and five wrong ones. Raises InputError for authors that there are
    not, or that stand in both tables, and for a folder without the files.
    """
    for name, (start, stop) in (("authors", settings.authors), ("unseen", settings.unseen)):
        if not 0 <= start < stop <= AUTHORS:
            raise InputError(f"data.{name}: give [start, stop] of 0 to {AUTHORS}, got [{start}, {stop}]")
    if max(settings.authors[0], settings.unseen[0]) < min(settings.authors[1], settings.unseen[1]):
        raise InputError("data: authors and unseen overlap; a model must not be trained on what it is tested with")
    table = _read(settings.path, "full")
    prompts, answers = table["question"], table["answer"]
    if len(prompts) != EACH * AUTHORS:
        raise InputError(f"{settings.path}: full has {len(prompts)} rows, not {EACH} of each of {AUTHORS} authors")
    known: dict[tuple[Any, Any], list[Answer]] = {}
    for name in PERTURBED:
        other = _read(settings.path, name)
        for pair in zip(
            *(other[c] for c in ("question", "answer", "paraphrased_answer", "perturbed_answer")), strict=True
        ):
            question, answer, right, wrong = pair
            known[question, answer] = _others(0, right, wrong)
    groups = [f"author {row // EACH}" for row in range(len(prompts))]

    def authors(start: int, stop: int) -> QuestionSet:
        rows = slice(EACH * start, EACH * stop)
        found = question_set(prompts[rows], answers[rows], groups[rows], f"{settings.path}: full")
        pairs = zip(prompts[rows], answers[rows], strict=True)
        others = tuple(Answer(i, a.kind, a.text) for i, pair in enumerate(pairs) for a in known.get(pair, ()))
        ids = tuple(map(str, range(rows.start, rows.stop)))
        return replace(found, others=others, ids=ids)

    further = {name: _facts(settings.path, name, file) for name, file in FURTHER.items()} if settings.further else {}
    return question_source(authors(*settings.authors), authors(*settings.unseen), further)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads; none of the hub."""
    folder = Path(settings.path)
    names = ("full", *PERTURBED, *(FURTHER.values() if settings.further else ()))
    return [folder / f"{name}.json" for name in names] if folder.is_dir() else []


def _facts(path: str, name: str, file: str) -> QuestionSet:
    table = _read(path, file)
    found = question_set(table["question"], table["answer"], [name] * len(table["question"]), f"{path}: {file}")
    answers = zip(table["answer"], table["perturbed_answer"], strict=True)
    others = tuple(a for row, (right, wrong) in enumerate(answers) for a in _others(row, right, wrong))
    return with_others(found, others)


def _others(row: int, right: str, wrong: Sequence[str]) -> list[Answer]:
    return [Answer(row, "paraphrased", right), *(Answer(row, "perturbed", text) for text in wrong)]


def _read(path: str, name: str) -> Table:
    folder = Path(path)
    if not folder.is_dir():
        found = fetch(HubSettings(path=path, config=name, revision=None), "train", None)
        return {column: list(found[column]) for column in found.column_names}
    file = folder / f"{name}.json"
    if not file.is_file():
        raise InputError(f"{folder} has no {name}.json; give the folder of TOFU's files, or locuslab/TOFU")
    return read_table(file)
