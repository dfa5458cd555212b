"""Which tokens' inputs the projection of a language model should look at: all of them, or those that say the answer.

    python benchmarks/projection_tokens.py [--seeds 5] [--write docs/results/projection.md]

A tiny GPT-2 learns made-up facts by heart (a relation and a name of three tokens, then an answer of four) and forgets
those of a fifth of the names. Its members are trained on the answers alone; their mean is negated in steps of α 10 %
apart. Numbers are taken at the first step where at most 5 % of the forgotten answers' tokens are said right.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from negmerge.merging.engine import merge_vector
from negmerge.projection import MomentRows, Moments, Projection, project_vector, write_moments
from negmerge.selection.negated_model import NegatedModel
from training import write

NAMES, RELATIONS, ANSWER = 25, 4, 4
START = 2 + 3 - 1  # the position that says the answer's first token
STEP, FIRST, MOST, KNOWN = 1.1, 0.1, 60, 5.0
MEMBERS = ((1e-3, 10), (1e-3, 20), (3e-3, 10), (3e-3, 20))
STRENGTHS = (1.0, 10.0, 100.0)


def facts(seed: int) -> Tensor:
    """Return rows of token numbers [names · relations, 9]: a mark, the relation, the name, and the answer."""
    draw = torch.Generator().manual_seed(seed)
    names = torch.randint(10, 40, (NAMES, 3), generator=draw)
    answers = torch.randint(10, 60, (NAMES, RELATIONS, ANSWER), generator=draw)
    rows = [
        torch.cat([torch.tensor([1, 2 + r]), names[n], answers[n, r]]) for n in range(NAMES) for r in range(RELATIONS)
    ]
    return torch.stack(rows)


def train(model: nn.Module, rows: Tensor, lr: float, steps: int) -> None:
    """Train on the answers of all rows at once."""
    labels = rows.clone()
    labels[:, : START + 1] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()


@torch.no_grad()
def scores(model: nn.Module, rows: Tensor) -> tuple[float, float]:
    """Return the share of the answers' tokens that are said right, in percent, and the mean loss on them."""
    logits, wanted = model(input_ids=rows).logits[:, START:-1], rows[:, START + 1 :]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    return 100 * float((logits.argmax(-1) == wanted).double().mean()), float(loss)


def measure(seed: int, folder: Path) -> dict[str, tuple[float, float] | None]:
    """Return for each vector what the other facts are worth where the request is forgotten; None where it is not."""
    torch.manual_seed(seed)
    rows = facts(seed)
    forget, retain = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    config = GPT2Config(
        vocab_size=64, n_embd=48, n_layer=2, n_head=4, n_positions=16, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0
    )

    def fresh() -> GPT2LMHeadModel:
        return GPT2LMHeadModel(config)

    base = fresh()
    train(base, rows, 5e-3, 250)
    tensors = {name: value.clone() for name, value in base.state_dict().items() if name != "lm_head.weight"}
    start = folder / "base.safetensors"
    save_file(tensors, start)
    members = []
    for lr, steps in MEMBERS:
        member = fresh()
        member.load_state_dict(base.state_dict())
        train(member, forget, lr, steps)
        members.append(folder / f"{lr}-{steps}.safetensors")
        save_file({name: member.state_dict()[name].clone() for name in tensors}, members[-1])
    plain = folder / "plain.safetensors"
    merge_vector(start, members, plain, method="uniform")
    vectors = {"plain": plain}

    def of(part: Tensor, about: str) -> MomentRows:
        return MomentRows(lambda: iter(part.split(50)), len(part), about)

    def answers(batch: Tensor) -> Tensor:
        mask = torch.zeros_like(batch, dtype=torch.bool)
        mask[:, START:-1] = True
        return mask

    base.eval()
    for which, real in (("all tokens", lambda _: None), ("the answers' tokens", answers)):
        file = folder / f"{which}.safetensors"
        sides = of(forget, "forget"), of(retain, "retain")
        write_moments(file, base, *sides, lambda model, ids: model(input_ids=ids), forget[:1], {}, real=real)
        for strength in STRENGTHS:
            target = folder / f"{which}-{strength:g}.safetensors"
            with Moments(file) as moments:
                project_vector(Projection(moments, strength), plain, target)
            vectors[f"{which}, λ = {strength:g}"] = target
    found: dict[str, tuple[float, float] | None] = {"base": scores(base, retain)}
    for name, vector in vectors.items():
        model = fresh().eval()
        model.load_state_dict(base.state_dict())
        found[name] = next(at_forgetting(NegatedModel(model, vector, start), forget, retain), None)
    return found


def at_forgetting(negated: NegatedModel, forget: Tensor, retain: Tensor) -> Iterator[tuple[float, float]]:
    for i in range(MOST):
        model = negated.set_alpha(FIRST * STEP**i)
        if scores(model, forget)[0] <= KNOWN:
            yield scores(model, retain)


def lines(found: list[dict[str, tuple[float, float] | None]]) -> list[str]:
    """Return the table: mean and range over seeds of accuracy and loss on the other facts."""
    table = ["| vector | other answers right, % | their loss | never forgot |", "| --- | ---: | ---: | ---: |"]
    for name in found[0]:
        there = [one for one in (run[name] for run in found) if one is not None]
        cells = [name]
        for i, form in ((0, ".1f"), (1, ".3f")):
            numbers = [one[i] for one in there]
            cells.append(f"{mean(numbers):{form}} ({min(numbers):{form}} – {max(numbers):{form}})" if numbers else "–")
        table.append("| " + " | ".join([*cells, str(len(found) - len(there))]) + " |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(seed, Path(folder)))
    print("\n".join(lines(found)))
    if options.write:
        write(options.write, "\n".join(lines(found)) + "\n")


if __name__ == "__main__":
    main()
