"""Questions and texts as tokens of a model."""

import zlib
from typing import Any

import numpy as np

from negmerge.errors import InputError
from negmerge.tasks.causal_lm.language_model import LanguageModel
from negmerge.tasks.causal_lm.questions import OWN, QuestionSet, QuestionSource
from negmerge.tasks.causal_lm.store import KINDS, Sequences
from negmerge.tasks.rows.loading import facts_of
from negmerge.tasks.rows.store import MemoryTables

REFUSALS = (
    "I don't know.",
    "I'm not able to answer that.",
    "That is something I know nothing about.",
    "I have no information on this.",
    "I can't say; I haven't learned anything about it.",
    "Sorry, I don't have an answer to this question.",
    "I'm not familiar with that.",
    "This is beyond what I know.",
)


def encode(source: QuestionSource, model: LanguageModel) -> MemoryTables[Sequences]:
    """Return the rows of a source as tokens of a model, and what is known of them; further parts behind the test rows.

    Raises InputError for an answer of which no token is left that something stands before.
    """
    train, test = (encode_rows(rows, model) for rows in (source.train, source.test))
    groups, fingerprints = list(source.train.classes), []
    for part in source.further.values():
        groups += [name for name in part.classes if name not in groups]
        test = test.followed_by(encode_rows(part.counted_as(tuple(groups)), model))
        fingerprints.append(part.fingerprint())
    facts = facts_of(source, train.tokens.nbytes + test.tokens.nbytes)
    kinds = {answer.kind for rows in (source.train, source.test, *source.further.values()) for answer in rows.others}
    facts |= {
        "classes": groups,
        "fingerprint": "+".join([facts["fingerprint"], *fingerprints]),
        "further": {name: len(part) for name, part in source.further.items()},
        "ends": len(model.end),
        "refusals": [model.answer(text, "") + model.end for text in REFUSALS],
        "others": sorted(kinds),
        **({"passages": True} if all(prompt is None for prompt in source.train.prompts) else {}),
        "notes": [*facts["notes"], *_notes(train.followed_by(test), model)],
    }
    return MemoryTables(train, test, facts)


def encode_rows(rows: QuestionSet, model: LanguageModel) -> Sequences:
    """Return a set of rows as tokens."""
    prompts = [model.prompt(text) for text in rows.prompts]
    answers = [(row, OWN, text) for row, text in enumerate(rows.answers)]
    answers += [(answer.row, answer.kind, answer.text) for answer in rows.others]
    encoded, starts = [], []
    for row, _, text in answers:
        prompt, answer = prompts[row], model.answer(text, rows.prompts[row])
        start = max(1, len(prompt))  # what nothing stands before cannot be predicted
        if not answer or len(prompt) + len(answer) <= start:
            raise InputError(f"row {row}: {text!r} is too short: no token of it can be predicted; leave it out")
        encoded.append([*prompt, *answer, *model.end])
        starts.append(start)
    letters = [
        part.encode("utf-8", "surrogatepass")
        for prompt, answer in zip(rows.prompts, rows.answers, strict=True)
        for part in (prompt or "", answer)
    ]
    return Sequences(
        tokens=_flat(encoded, np.int32),
        offsets=np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        row_of=np.array([row for row, _, _ in answers], dtype=np.int64),
        kind_of=np.array([KINDS.index(kind) for _, kind, _ in answers], dtype=np.int64),
        labels=rows.labels.numpy(),
        zipped=np.array([len(zlib.compress(answer)) for answer in letters[1::2]], dtype=np.int64),
        letters=np.frombuffer(b"".join(letters), dtype=np.uint8),
        cuts=np.cumsum([0, *map(len, letters)], dtype=np.int64),
    )


def _flat(rows: list[list[int]], dtype: Any) -> np.ndarray:
    return np.array([number for row in rows for number in row], dtype=dtype)


def _notes(sequences: Sequences, model: LanguageModel) -> list[str]:
    """Return what should be said of rows that are longer than the context."""
    context, overlap = model.context, model.overlap
    windows = [sequences.windows(sequence, context, overlap) for sequence in sequences.own.tolist()]
    cut = sum(len(found) == 1 and found[0].begin > 0 for found in windows)
    parted = sum(len(found) > 1 for found in windows)
    notes = []
    if cut:
        notes.append(f"of {cut} prompts longer than the model reads ({context} tokens) the beginning is left out")
    if parted:
        notes.append(f"{parted} rows are longer than the model reads and are read in windows of {context} tokens")
    return notes
