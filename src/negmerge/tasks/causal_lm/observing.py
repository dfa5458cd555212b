"""Answers of a model to rows: batches of like lengths, of whose logits a few numbers a token are kept."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from negmerge.tasks.causal_lm.batches import NOTHING, Batch, Reader
from negmerge.tasks.causal_lm.columns import OF_OTHERS, SAID, STANDARD, Answered, Tokens, columns_of
from negmerge.tasks.causal_lm.generating import continuations
from negmerge.tasks.causal_lm.language_model import LanguageModel
from negmerge.tasks.causal_lm.logits import answer_logits
from negmerge.tasks.causal_lm.store import KINDS
from negmerge.tasks.compute import Compute
from negmerge.tasks.lengths import cut_by_length
from negmerge.tasks.on_threads import device_of, on_threads

LOGITS = {"cpu": 2**24}  # numbers of the vocabulary that are evaluated at a time: 64 MB, padding included
MOST_LOGITS = 2**28  # elsewhere
LEAST = 64  # tokens in a batch, however large the vocabulary


def observe_parts(
    language: LanguageModel,
    reader: Reader,
    ends: int,
    compute: Compute,
    model: nn.Module,
    parts: Mapping[str, Tensor],
    columns: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Tensor]]:
    """Return the columns of every part, one number for each row, on the CPU, in one pass.

    `parts` maps a name to row numbers, int64 [m], `columns` the name to the columns asked for; `ends` is the number of
    tokens of an end's label. What is needed of all
    parts, other answers included, is sorted by length and cut into batches; a row that stands in two parts is read
    once.
    """
    sequences = reader.sequences
    wanted = {row for rows in parts.values() for row in rows.tolist()}
    with_others = {row for part, rows in parts.items() if set(columns[part]) & set(OF_OTHERS) for row in rows.tolist()}
    needed = [int(sequences.own[row]) for row in sorted(wanted)]
    needed += [s for row in sorted(with_others) for s in sequences.others.get(row, ())]
    standard = any(name in STANDARD for part in parts for name in columns[part])
    answers = _answers(reader, compute, model, needed, standard)
    asked = {row for part, rows in parts.items() if set(columns[part]) & set(SAID) for row in rows.tolist()}
    said = continuations(language, sequences, compute, model, sorted(asked))
    found = {}
    for row in sorted(wanted):
        others: dict[str, list[Tokens]] = {}
        for sequence in sequences.others.get(row, ()) if row in with_others else ():
            others.setdefault(KINDS[int(sequences.kind_of[sequence])], []).append(answers[sequence])
        own = answers[int(sequences.own[row])]
        found[row] = Answered(own, others, int(sequences.labels[row]), int(sequences.zipped[row]), ends, said.get(row))
    return {part: columns_of([found[row] for row in rows.tolist()], columns[part]) for part, rows in parts.items()}


def _answers(
    reader: Reader, compute: Compute, model: nn.Module, needed: Sequence[int], standard: bool
) -> dict[int, Tokens]:
    """Return what is kept of each sequence, its windows put together."""
    windows = reader.windows(needed)
    if not windows:
        return {}
    model.eval()
    device = next(model.parameters()).device
    lengths = torch.tensor([w.end - w.begin for _, w in windows])
    order = lengths.argsort(stable=True)
    vocabulary = int(getattr(getattr(model, "config", None), "vocab_size", 0)) or 2**15
    room = max(LEAST, LOGITS.get(device_of(model), MOST_LOGITS) // vocabulary)
    batches = order.split(cut_by_length(lengths[order], room))

    def one(places: Tensor) -> list[tuple[int, Tokens]]:
        with torch.inference_mode():  # a thread has its own
            batch = reader.batch([windows[i] for i in places.tolist()])
            return list(zip(places.tolist(), tokens_of(compute, model, batch.to(device), standard), strict=True))

    of_window = dict(pair for pairs in on_threads(one, model, batches) for pair in pairs)
    found: dict[int, list[Tokens]] = {}
    for i, (sequence, _) in enumerate(windows):
        found.setdefault(sequence, []).append(of_window[i])
    return {s: Tokens(*map(torch.cat, zip(*parts, strict=True))) for s, parts in found.items()}


def tokens_of(compute: Compute, model: nn.Module, batch: Batch, standard: bool = False) -> list[Tokens]:
    """Return what is kept of the counted tokens of each window of a batch, on the CPU; see `Tokens`.

    Without `standard` its column is that of log p.
    """
    logits, labels = answer_logits(compute, model, batch)
    counts = labels != NOTHING
    flat = logits[counts].float()
    right = labels[counts]
    logs = flat.log_softmax(-1)
    own = logs.gather(1, right[:, None])[:, 0]
    matches = (flat.argmax(-1) == right) & ~flat.isnan().any(-1)
    scaled = own
    if standard:
        shares = logs.exp()
        mean = (shares * logs).sum(-1)
        spread = ((shares * logs.square()).sum(-1) - mean.square()).clamp(min=0.0).sqrt()
        scaled = (own - mean) / spread.clamp(min=1e-6)
    sizes = counts.sum(1).tolist()
    columns = (own.double().cpu(), matches.cpu(), scaled.double().cpu())
    return [Tokens(*parts) for parts in zip(*(column.split(sizes) for column in columns), strict=True)]
