"""Tables with columns of prompts and answers, or of texts, whatever format they were read from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from negmerge.errors import InputError, nearest, shortened
from negmerge.tasks.causal_lm.questions import OTHERS, Answer, QuestionSet, is_group, question_set, with_others

Table = Mapping[str, Sequence[Any]]  # the values of each column
NAMES = {  # what the columns are mostly called, the likeliest first
    "prompt": ("prompt", "question", "instruction", "input"),
    "answer": ("answer", "completion", "response", "output"),
    "text": ("text", "content", "document"),
    "group": ("group", "author", "document_id", "subject", "topic", "entity"),
    "paraphrased": ("paraphrased_answer",),
    "perturbed": ("perturbed_answer",),
    "id": ("id",),
}
INSTRUCTION, INPUT = "instruction", "input"  # of Alpaca: what to do, and on what
NONE = "none"


class QuestionSettings(BaseModel):
    """Settings of all sources of questions and texts."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str] = Field(
        default_factory=dict,
        description="prompt: NAME, answer: NAME (or text: NAME), group: NAME (none for no groups), id: NAME, input: "
        "NAME (put behind the prompt; none to leave it out); found by their names unless given",
    )
    most: int | None = Field(
        None, ge=1, description="a seeded sample of so many rows of the train table; all unless set"
    )


def find_columns(table: Table, chosen: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the names of the columns that are there: prompt and answer, or text; group; other answers; id.

    Those chosen, else the ones with a usual name, in capitals or not where that is unique; without prompts and answers
    a column of texts. `input` is there beside a prompt that is called `instruction`. Raises InputError where a column
    is missing or cannot be told.
    """
    unknown = [key for key in chosen if key not in (*NAMES, INPUT)]
    if unknown:
        known = (*NAMES, INPUT)
        raise InputError(f"columns: {unknown[0]!r} is not one of {', '.join(known)}{nearest(unknown[0], known)}")
    found: dict[str, str] = {}
    for role, usual in (*NAMES.items(), (INPUT, ())):
        if chosen.get(role) == NONE and role in ("group", INPUT):
            continue
        if role in chosen:
            name = named(table, chosen[role])
            if name is None:
                near = nearest(chosen[role], table)
                raise InputError(f"{where} has no column {chosen[role]!r}{near}; there are {shortened([*table])}")
        else:
            exact = [name for name in usual if name in table]
            name = next(iter(exact or filter(None, (named(table, one) for one in usual))), None)
        if name is not None:
            found[role] = name
    instructed = "prompt" in found and "prompt" not in chosen and found["prompt"] == named(table, INSTRUCTION)
    beside = named(table, INPUT) if instructed and chosen.get(INPUT) != NONE else None
    if beside is not None and beside not in found.values():
        found[INPUT] = beside
    if "prompt" in found and "answer" in found and "text" not in chosen:
        found.pop("text", None)
        return found
    if "text" in found and not {"prompt", "answer"} & set(chosen):
        return {role: name for role, name in found.items() if role in ("text", "group", "id")}
    lacking = "answer" if "prompt" in found else "prompt"
    raise InputError(
        f"{where}: which column holds the {lacking}? write columns: {{prompt: NAME, answer: NAME}}, or "
        f"{{text: NAME}}; there are {shortened([*table])}"
    )


def named(table: Iterable[str], name: str) -> str | None:
    """Return the column of a name: exactly, or else the only one that differs from it in capitals alone.

    >>> named({"Question": [], "id": []}, "question"), named({"a": [], "A": []}, "A"), named({"aB": [], "AB": []}, "ab")
    ('Question', 'A', None)
    """
    if name in table:
        return name
    alike = [other for other in table if str(other).casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def without_groups(table: Table, names: Mapping[str, str], chosen: Mapping[str, str], where: str) -> str:
    """Return why a column that was found by its name is no column of groups: a row has none, or several; else nothing.

    Where it was chosen it is one, and `to_questions` refuses such a row.
    """
    if "group" not in names or "group" in chosen:
        return ""
    values = table[names["group"]]
    wrong = next((row for row, value in enumerate(values) if not is_group(value)), None)
    if wrong is None:
        return ""
    return f"{where}: rows are not told by the groups in {names['group']!r}: row {wrong} has {values[wrong]!r}"


def to_questions(table: Table, names: Mapping[str, str], where: str) -> QuestionSet:
    """Return a table as a set of questions or texts; numbers are taken as texts.

    Raises InputError, naming the row, for what is none.
    """
    lacking = [name for name in names.values() if name not in table]
    if lacking:
        raise InputError(f"{where} has no column {lacking[0]!r}; it has {shortened([*table])}")
    prompts = _prompts(table, names) if "prompt" in names else None
    groups = table[names["group"]] if "group" in names else None
    answers = [_text(value) for value in table[names["answer" if "prompt" in names else "text"]]]
    used = {names[role] for role in names if role not in ("group", "id")}
    further = {name: list(values) for name, values in table.items() if name not in used and _is_plain(values)}
    if names.get("id") in further:
        further["id"] = further[names["id"]]
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


def _prompts(table: Table, names: Mapping[str, str]) -> list[Any]:
    """Return the prompts, each with a blank line and its input behind it where it has one."""
    prompts = [_text(value) for value in table[names["prompt"]]]
    if INPUT not in names:
        return prompts
    inputs = [_text(value) for value in table[names[INPUT]]]
    both = zip(prompts, inputs, strict=True)
    return [f"{a}\n\n{b}" if isinstance(a, str) and isinstance(b, str) and b.strip() else a for a, b in both]


def _text(value: Any) -> Any:
    """Return a number as a text, what is none as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _texts(value: Any, where: str) -> list[str]:
    if value is None:
        return []
    found = [_text(one) for one in (value if isinstance(value, list | tuple) else [value])]
    if not all(isinstance(text, str) and text.strip() for text in found):
        raise InputError(f"{where} must hold a text or a list of texts, got {value!r}")
    return found


def _is_plain(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, str | int | float | bool) for value in values)
