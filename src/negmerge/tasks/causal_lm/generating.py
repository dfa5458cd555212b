"""What a model says by itself: greedy continuations of prompts, in batches."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from negmerge.tasks.causal_lm.language_model import LanguageModel
from negmerge.tasks.causal_lm.store import Sequences
from negmerge.tasks.compute import Compute

BATCH = 32  # prompts that are continued at a time
LONGEST = 200  # tokens of an answer, as TOFU has it
SHORT = 32  # tokens of an answer where it is one of a few words, as MUSE has it
MARKS = ("\n\n", "\nQuestion", "Question:")  # where a model goes on to a next question by itself
OF_TEXT = 128  # tokens of a text that are given, and that are asked for


class Said(NamedTuple):
    """What a model says to a row by itself, what is right, and what of it counts where an answer is a few words.

    `short` are the first 32 tokens up to a blank line or a next question; of a text, `text` itself.
    """

    text: str
    right: str
    short: str


def continuations(
    language: LanguageModel, sequences: Sequences, compute: Compute, model: nn.Module, rows: Sequence[int]
) -> dict[int, "Said"]:
    """Return what a model says to the prompts of rows, greedily, and what is right, by row.

    A question is answered until the label of the answer's end, with 200 tokens at most. Of a text the first 128 tokens
    (half of a shorter one) are given, and the next 128 are right.
    """
    asked = {row: _ask(language, sequences, row) for row in rows}
    order = sorted(asked, key=lambda row: (len(asked[row][0]), row))
    found: dict[int, Said] = {}
    model.eval()
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        said = _continue(language, compute, model, [asked[row][0] for row in some], max(asked[r][2] for r in some))
        for row, tokens in zip(some, said, strict=True):
            _, right, room, question = asked[row]
            text, short = (
                language.tokenizer.decode(tokens[:most], skip_special_tokens=True).strip() for most in (room, SHORT)
            )
            found[row] = Said(text, right, cut_at_marks(short) if question else text)
    return found


def cut_at_marks(text: str) -> str:
    """Return an answer up to a blank line, or to where the model asks itself the next question.

    >>> cut_at_marks("Ann.\\nQuestion: Who"), cut_at_marks("Question: Who?")
    ('Ann.', '')
    """
    return text[: min((at for at in map(text.find, MARKS) if at >= 0), default=len(text))].strip()


def _ask(language: LanguageModel, sequences: Sequences, row: int) -> tuple[Tensor, str, int, bool]:
    """Return the tokens of a prompt, the right answer, the most tokens of one, and whether it is a question."""
    sequence = int(sequences.own[row])
    ids = sequences.ids(sequence)
    prompt, answer = sequences.text(row)
    if prompt:
        room = min(LONGEST, language.context // 2)
        return ids[: int(sequences.starts[sequence])][room - language.context :], answer, room, True
    given = min(OF_TEXT, max(1, len(ids) // 2))
    right = ids[given : given + OF_TEXT]
    return ids[:given], language.tokenizer.decode(right, skip_special_tokens=True).strip(), len(right), False


@torch.inference_mode()
def _continue(
    language: LanguageModel, compute: Compute, model: nn.Module, prompts: Sequence[Tensor], most: int
) -> list[list[int]]:
    """Return the likeliest continuation of each prompt, without the end's label; prompts are padded on the left."""
    longest = max(map(len, prompts))
    device = next(model.parameters()).device
    ids = torch.full((len(prompts), longest), language.padding, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :], mask[i, longest - len(prompt) :] = prompt, 1
    called: Any = model
    end = language.end[0] if language.end else language.tokenizer.eos_token_id
    how: Mapping[str, Any] = {
        "max_new_tokens": most, "do_sample": False, "num_beams": 1, "eos_token_id": end,
        "pad_token_id": language.padding,
    }  # fmt: skip
    with compute.autocast(device.type):
        whole = called.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **how)
    said = [row[longest:].tolist() for row in whole.cpu()]
    return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in said]
