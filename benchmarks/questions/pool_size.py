"""N: nested subsets of the pool in several orders, α chosen anew for each."""

from collections.abc import Sequence
from typing import Any

from questions.draws import Draw, Row
from questions.tables import Spread, markdown

TITLE = "How many members"
SIZES = (2, 3, 5, 10, 20, 27)
ORDERS = 3
MERGES = ("consensus", "uniform", "random-mask")


def measure(draw: Draw) -> list[Row]:
    """Return a row for every merge of the first 2, 3, 5 … members in each order; the whole pool has one order."""
    found = []
    sizes = sorted({min(size, len(draw.members)) for size in SIZES})
    for number in range(ORDERS):
        names = draw.order(number)
        for size in sizes:
            if size == len(names) and number:
                continue
            members = draw.some(names[:size])
            found += [{"order": number, "size": size, "merge": m, **draw.row(members, m)} for m in MERGES]
    return found


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each size: gap of each merge, and share kept and α of the consensus."""
    rows = [row for draw in draws for row in draw]
    lines = []
    for size in sorted({row["size"] for row in rows}):
        own = {m: [row for row in rows if row["size"] == size and row["merge"] == m] for m in MERGES}
        consensus = own["consensus"]
        kept = Spread.of(100 * row["kept"] for row in consensus)
        alpha = Spread.of(row["alpha"] for row in consensus)
        gaps = [Spread.of(row["gap"] for row in own[m]) for m in MERGES]
        forgets = [Spread.of(row["forget"] for row in own[m]) for m in MERGES[:2]]
        cells = [size, len(consensus), f"{kept.mean:.1f}", f"{100 * 2.0 ** (1 - size):.2g}", f"{alpha.mean:.2f}"]
        lines.append([*cells, *gaps, *forgets])
    header = ["N", "n", "kept %", "by chance %", "α", *(f"gap: {m}" for m in MERGES)]
    return markdown([*header, *(f"forget: {m}" for m in MERGES[:2])], lines)
