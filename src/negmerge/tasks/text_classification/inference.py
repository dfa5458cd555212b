"""Answers of a model to texts: batches of like lengths, of whose logits only columns are kept."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from negmerge.tasks.columns import columns_of
from negmerge.tasks.lengths import cut_by_length
from negmerge.tasks.observing import observe_in_one_pass
from negmerge.tasks.on_threads import device_of
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
    device = next(model.parameters()).device
    most = TOKENS.get(device_of(model), MOST_TOKENS)

    def answer(rows: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        padded = pad(*table.take(rows), classifier.padding)
        return columns_of(classifier.logits(model, padded.to(device)).cpu(), padded.labels, names)

    lengths = torch.from_numpy(table.lengths)
    return observe_in_one_pass(model, parts, columns, answer, lambda sorted: cut_by_length(sorted, most), lengths)
