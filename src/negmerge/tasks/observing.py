"""One pass of a model over the rows of several parts: of its answers to a batch only columns are kept."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from negmerge.tasks.columns import no_rows
from negmerge.tasks.on_threads import on_threads


def observe_in_one_pass(
    model: nn.Module,
    parts: Mapping[str, Tensor],
    columns: Mapping[str, Sequence[str]],
    answer: Callable[[Tensor, Sequence[str]], Mapping[str, Tensor]],
    sizes: Callable[[Tensor], int | list[int]],
    lengths: Tensor | None = None,
    no_rows: Callable[[str], Tensor] = no_rows,
) -> dict[str, dict[str, Tensor]]:
    """Return the columns of every part, one number for each row, on the CPU.

    `parts` maps a name to row numbers, int64 [m], `columns` the name to the columns asked for. The rows of all parts
    are one list, sorted by their `lengths` (of all rows of the table) where these are given, and cut: `sizes` of the
    sorted lengths, or of the rows, is how many a batch has, or a list of how many each has. So batches run across the
    borders of the parts, and many small ones cost no more than a large one. `answer(rows, names)` returns columns of
    a batch, in inference mode; threads call it. The columns come back in the order of the rows.
    """
    counts, rows = [len(part) for part in parts.values()], torch.cat(list(parts.values()))
    names = list(dict.fromkeys(name for part in parts for name in columns[part]))
    model.eval()

    def one(batch: Tensor) -> Mapping[str, Tensor]:
        with torch.inference_mode():  # a thread has its own
            return answer(batch, names)

    order = None if lengths is None else lengths[rows].argsort(stable=True)
    ordered = rows if order is None else rows[order]
    cut = sizes(ordered if lengths is None else lengths[ordered])
    found = on_threads(one, model, ordered.split(cut))
    whole = {name: torch.cat([no_rows(name), *(of_batch[name] for of_batch in found)]) for name in names}
    if order is not None:
        back = order.argsort()
        whole = {name: column[back] for name, column in whole.items()}
    split = {name: column.split(counts) for name, column in whole.items()}
    return {part: {name: split[name][i] for name in columns[part]} for i, part in enumerate(parts)}
