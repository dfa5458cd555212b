"""A pool of LoRA adapters: a tiny GPT-2 forgets sequences that it knows by heart, and only factors are stored.

All members start from one draw of A. Give a module that PEFT wrapped in the place of `model`, and its own rank and
layers are used.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

import negmerge


class Sequences(Dataset[dict[str, Tensor]]):
    """Rows of token numbers; a language model's labels are its inputs."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


# What you have: a language model, and rows that it can say by heart.
rows = torch.randint(5, 50, (48, 12), generator=torch.Generator().manual_seed(0))
forget, retain = rows[:8], rows[8:]
torch.manual_seed(0)
config = GPT2Config(
    vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2, pad_token_id=0
)
model = GPT2LMHeadModel(config)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for _ in range(200):
    optimizer.zero_grad()
    model(input_ids=rows, labels=rows).loss.backward()
    optimizer.step()


@torch.no_grad()
def said_right(module: nn.Module) -> Mapping[str, float]:
    """Return the share of tokens that the model would say next, in percent."""
    found = {}
    for name, part in (("forget", forget), ("retain", retain)):
        said = module(input_ids=part).logits[:, :-1].argmax(-1)
        found[name] = 100 * float((said == part[:, 1:]).float().mean())
    return found


# What you do: {r, alpha, targets}; every linear layer unless targets names some.
result = negmerge.unlearn(
    model.eval(),
    Sequences(forget),
    evaluate=said_right,
    pool={"adapter": {"r": 4}, "train": {"batch_size": 8}, "grid": {"lr": [3e-3, 1e-2, 3e-2], "epochs": [10, 20]}},
    selection={"floor": 0.9},
)
print(result)
for name, one in (("before", model), ("after", result.model)):
    print(f"{name}: tokens said right", ", ".join(f"{part} {share:.0f} %" for part, share in said_right(one).items()))
print(f"members agree, with a mean cosine of {result.results['pool']['mean_cosine']:.2f}")
