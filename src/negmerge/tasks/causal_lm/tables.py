"""Tables with columns of prompts and answers, or of texts, whatever format they were read from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from negmerge.errors import InputError, nearest, shortened
from negmerge.tasks.causal_lm.questions import OTHERS, Answer, QuestionSet, question_set, with_others

Table = Mapping[str, Sequence[Any]]  # the values of each column
NAMES = {  # what the columns are mostly called, the likeliest first
    "prompt": ("prompt", "question", "instruction", "input"),
    "answer": ("answer", "completion", "response", "output"),
    "text": ("text", "content", "document"),
    "group": ("group", "author", "document_id", "subject", "topic", "entity"),
    "paraphrased": ("paraphrased_answer",),
    "perturbed": ("perturbed_answer",),
}
NEEDED = ("prompt", "answer", "text")
NONE = "none"


class QuestionSettings(BaseModel):
    """Settings of all sources of questions and texts."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str] = Field(
        default_factory=dict,
        description="prompt: NAME, answer: NAME (or text: NAME), group: NAME (none for no groups); found by their "
        "names unless given",
    )
    most: int | None = Field(
        None, ge=1, description="a seeded sample of so many rows of the train table; all unless set"
    )


def find_columns(table: Table, chosen: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the names of the columns that are there: prompt and answer, or text; group; other answers.

    Those chosen, else the ones with a usual name; without prompts and answers a column of texts. Raises InputError
    where a column is missing or cannot be told.
    """
    unknown = [key for key in chosen if key not in NAMES]
    if unknown:
        raise InputError(f"columns: {unknown[0]!r} is not one of {', '.join(NAMES)}{nearest(unknown[0], NAMES)}")
    found: dict[str, str] = {}
    for role, usual in NAMES.items():
        name = chosen.get(role) or next((name for name in usual if name in table), None)
        if role == "group" and name == NONE:
            continue
        if name is not None and name not in table:
            raise InputError(f"{where} has no column {name!r}{nearest(name, table)}; there are {shortened([*table])}")
        if name is not None:
            found[role] = name
    if "prompt" in found and "answer" in found and "text" not in chosen:
        found.pop("text", None)
        return found
    if "text" in found and not {"prompt", "answer"} & set(chosen):
        return {role: name for role, name in found.items() if role in ("text", "group")}
    lacking = "answer" if "prompt" in found else "prompt"
    raise InputError(
        f"{where}: which column holds the {lacking}? write columns: {{prompt: NAME, answer: NAME}}, or "
        f"{{text: NAME}}; there are {shortened([*table])}"
    )


def to_questions(table: Table, names: Mapping[str, str], where: str) -> QuestionSet:
    """Return a table as a set of questions or texts. Raises InputError, naming the row, for what is none."""
    lacking = [name for name in names.values() if name not in table]
    if lacking:
        raise InputError(f"{where} has no column {lacking[0]!r}; it has {shortened([*table])}")
    prompts = table[names["prompt"]] if "prompt" in names else None
    groups = table[names["group"]] if "group" in names else None
    answers = table[names["answer" if "prompt" in names else "text"]]
    used = {names[role] for role in names if role != "group"}
    further = {name: list(values) for name, values in table.items() if name not in used and _is_plain(values)}
    found = question_set(prompts, answers, groups, where, further)
    others = [
        Answer(row, kind, text)
        for row in range(len(found))
        for kind in OTHERS
        if kind in names
        for text in _texts(table[names[kind]][row], f"{where}: row {row}: {names[kind]}")
    ]
    return with_others(found, others)


def sampled(rows: QuestionSet, most: int | None) -> QuestionSet:
    """Return a seeded sample of so many rows, in their order; all where there are no more."""
    if most is None or most >= len(rows):
        return rows
    return rows.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most].sort().values)


def _texts(value: Any, where: str) -> list[str]:
    if value is None:
        return []
    found = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(text, str) and text.strip() for text in found):
        raise InputError(f"{where} must hold a text or a list of texts, got {value!r}")
    return found


def _is_plain(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, str | int | float | bool) for value in values)
