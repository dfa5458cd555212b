"""Answers of a model to texts: batches of like lengths, of whose logits only columns are kept."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from negmerge.tasks.columns import columns_of, no_rows
from negmerge.tasks.on_threads import device_of, on_threads
from negmerge.tasks.text_classification.batches import pad
from negmerge.tasks.text_classification.classifier import TextClassifier
from negmerge.tasks.text_classification.store import TokenTable

TOKENS = {"cpu": 2048}  # that are evaluated at a time, padding included
MOST_TOKENS = 32768  # elsewhere


def observe_parts(
    classifier: TextClassifier,
    model: nn.Module,
    table: TokenTable,
    parts: Mapping[str, Tensor],
    columns: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Tensor]]:
    """Return the columns of every part, one number for each row, on the CPU, in one pass.

    `parts` maps a name to row numbers, int64 [m], `columns` the name to the columns asked for. The rows of all parts
    are sorted by length and cut into batches of so many tokens; the columns come back in the order of the rows.
    """
    sizes, rows = [len(rows) for rows in parts.values()], torch.cat(list(parts.values()))
    names = list(dict.fromkeys(name for part in parts for name in columns[part]))
    model.eval()
    device = next(model.parameters()).device

    def one(batch: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():  # a thread has its own
            padded = pad(*table.take(batch), classifier.padding)
            logits = classifier.logits(model, padded.to(device)).cpu()
            return columns_of(logits, padded.labels, names)

    lengths = torch.from_numpy(table.lengths[rows.numpy()])
    order = lengths.argsort(stable=True)
    counts = _cut(lengths[order], TOKENS.get(device_of(model), MOST_TOKENS))
    found = on_threads(one, model, rows[order].split(counts))
    back = order.argsort()
    whole = {n: torch.cat([no_rows(n), *(of_batch[n] for of_batch in found)])[back].split(sizes) for n in names}
    return {part: {name: whole[name][i] for name in columns[part]} for i, part in enumerate(parts)}


def _cut(lengths: Tensor, tokens: int) -> list[int]:
    """Return how many rows each batch has, of rows that are sorted by length: as many as `tokens` have room for.

    >>> _cut(torch.tensor([1, 1, 2, 4]), 4)
    [2, 1, 1]
    """
    counts: list[int] = []
    count = 0
    for length in lengths.tolist():
        if count and (count + 1) * length > tokens:
            counts.append(count)
            count = 0
        count += 1
    return [*counts, count] if count else counts
