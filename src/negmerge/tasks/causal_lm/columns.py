"""The columns of a causal language model: what is kept of the answers to a row, one number for each row."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from negmerge.scores.language import (
    exact_memorisation,
    extraction_strength,
    min_k,
    rouge_l_f1,
    rouge_l_recall,
    truth_ratio,
)
from negmerge.tasks.causal_lm.generating import Said


class Tokens(NamedTuple):
    """What is kept of the tokens of one answer: log p of each, float64 [T]; whether each is the likeliest, bool [T];
    (log p − μ)/σ over the vocabulary, float64 [T]. The label of the end is the last, where there is one."""

    logs: Tensor
    matches: Tensor
    standard: Tensor

    @property
    def loss(self) -> float:
        """ℓ = −mean of log p, in nats per token, the end's label included."""
        return -float(self.logs.mean())


@dataclass(frozen=True, eq=False)
class Answered:
    """A row's own answer, and others to the same question by their kind; `ends` is the length of the end's label."""

    own: Tokens
    others: Mapping[str, Sequence[Tokens]]
    group: int
    zipped: int
    ends: int
    said: Said | None = None

    @property
    def inner(self) -> Tokens:
        """The own answer without the label of its end."""
        return self.without_end(self.own)

    def without_end(self, answer: Tokens) -> Tokens:
        """An answer without the label of its end."""
        return Tokens(*(part[: len(part) - self.ends] for part in answer))


def _options(row: Answered) -> float:
    wrong = row.others.get("perturbed", ())
    if not wrong:
        return math.nan
    right = math.exp(-row.own.loss)
    return right / (right + sum(math.exp(-one.loss) for one in wrong))


def _chosen(row: Answered) -> float:
    wrong = [row.without_end(one) for one in row.others.get("perturbed", ())]
    return float(row.inner.loss < min(one.loss for one in wrong)) if wrong else math.nan


def _truth_ratio(row: Answered) -> float:
    right, wrong = row.others.get("paraphrased", ()), row.others.get("perturbed", ())
    if not (right and wrong):
        return math.nan
    return truth_ratio(right[0].loss, [one.loss for one in wrong])


def _rouge(row: Answered) -> float:
    assert row.said is not None
    return rouge_l_recall(row.said.text, row.said.right)


def _rouge_f1(row: Answered) -> float:
    assert row.said is not None
    return rouge_l_f1(row.said.short, row.said.right)


COLUMNS: dict[str, tuple[torch.dtype, Callable[[Answered], float | int | bool]]] = {
    "correct": (torch.bool, lambda row: bool(row.inner.matches.all())),
    "loss": (torch.float64, lambda row: row.own.loss),
    "tokens": (torch.int64, lambda row: len(row.own.logs)),
    "confidence": (torch.float64, lambda row: math.exp(-row.own.loss)),
    "group": (torch.int64, lambda row: row.group),
    "memorised": (torch.float64, lambda row: exact_memorisation(row.inner.matches)),
    "extraction": (torch.float64, lambda row: extraction_strength(row.inner.matches)),
    "zlib": (torch.float64, lambda row: row.own.loss / row.zipped),
    "min_k": (torch.float64, lambda row: min_k(row.inner.logs)),
    "min_k_plus_plus": (torch.float64, lambda row: min_k(row.inner.standard)),
    "options": (torch.float64, _options),
    "truth_ratio": (torch.float64, _truth_ratio),
    "chosen": (torch.float64, _chosen),
    "rouge": (torch.float64, _rouge),
    "rouge_f1": (torch.float64, _rouge_f1),
}
SAID = (
    "rouge",
    "rouge_f1",
)  # columns for which the model has to go on by itself: dear, so no score of the curve needs one
OF_OTHERS = ("options", "truth_ratio", "chosen")  # columns that are made of other answers too
STANDARD = ("min_k_plus_plus",)  # that need (log p − μ)/σ


def columns_of(rows: Sequence[Answered], names: Sequence[str]) -> dict[str, Tensor]:
    """Return columns of answered rows.

    correct: every token of the answer is the likeliest (bool); loss: ℓ, nats per token; tokens: how many; confidence:
    exp(−ℓ); memorised, extraction: shares of the answer, see `scores.language`; zlib: ℓ / bytes of the compressed
    answer; rouge: ROUGE-L recall of what the model says by itself, rouge_f1: F1 of its first words (see `Said`); min_k,
    min_k_plus_plus; options: p / (p + Σ p of the wrong answers), truth_ratio: R; chosen: 1 where the right answer has
    the smallest loss of these, its end left out, else 0; all three NaN where a row has no other answers. correct,
    memorised, extraction and min_k leave out the label of the answer's end.
    """
    return {name: torch.tensor([COLUMNS[name][1](row) for row in rows], dtype=COLUMNS[name][0]) for name in names}
