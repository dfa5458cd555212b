"""Cosines of honest pools, and of pools whose members are of another base: where the thresholds of the warning lie.

    python benchmarks/other_base.py FOLDER --inputs DIR [--only GROUP…] [--write]

Pools are trained into FOLDER, once; then all are measured by `negmerge.inspect`. `--inputs` is a folder with
CIFAR-10 (data/cifar10) and ResNet-20s trained on it (models). With `--write` the table replaces the one in
docs/merging.md.
"""

import argparse
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.merging.inspecting import Inspection, inspect_checkpoints
from training import write

PAGE = Path(__file__).resolve().parents[1] / "docs" / "merging.md"
RATES, EPOCHS, DECAYS = (0.001, 0.01, 0.1), (1, 5, 20), (0.0, 1e-4, 5e-4)
BATCH = 64

State = dict[str, Tensor]
Loss = Callable[[nn.Module, Tensor], Tensor]  # of a batch, the numbers of some rows


def trained(
    model: nn.Module, loss: Loss, rows: int, optimizer: torch.optim.Optimizer, seed: int, stops: Sequence[int]
) -> list[State]:
    """Train a model in place, and return its state after each number of epochs in `stops`."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    found = []
    for epoch in range(1, stops[-1] + 1):
        for batch in torch.randperm(rows, generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
        if epoch in stops:
            found.append(copy.deepcopy(model.state_dict()))
    return found


def sgd(model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """Return the optimizer of the networks for images."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)


def classifies(images: Tensor, labels: Tensor) -> Loss:
    """Return the cross-entropy of rows of images."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return functional.cross_entropy(model(images[batch]), labels[batch])

    return loss


class Pools:
    """The pools of a folder: `add` writes one unless it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, base: State, members: Sequence[State]) -> None:
        """Write the base and the members of a pool."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        for i, state in enumerate(members):
            write_state_dict(place / f"member{i}.safetensors", contiguous(state))
        write_state_dict(place / "base.safetensors", contiguous(base))  # the last, so that a pool with a base is whole

    def grid(self, name: str, model: nn.Module, loss: Loss, rows: int, others: Mapping[str, State]) -> None:
        """Fine-tune a model at every rate, and write the pools of every length, also against other bases."""
        for rate in RATES:
            runs = []
            for seed, decay in enumerate(DECAYS):
                tuned = copy.deepcopy(model)
                runs.append(trained(tuned, loss, rows, sgd(tuned, rate, decay), seed, EPOCHS))
            for stop, members in zip(EPOCHS, zip(*runs, strict=True), strict=True):
                self.add(f"honest/{name}/lr {rate:g}, {stop} epochs", model.state_dict(), members)
                for other, state in others.items():
                    self.add(f"other/{name} against {other}/lr {rate:g}, {stop} epochs", state, members)


def contiguous(state: State) -> State:
    """Return a state dict with tensors of their own."""
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def digits(pools: Pools, inputs: Path) -> None:
    """small-cnn on scikit-learn's digits, fine-tuned on one of them; the other base is of another seed."""
    from negmerge.tasks.image_classification.families import small_cnn
    from negmerge.tasks.image_classification.sources import digits as source

    train = source.load(source.Settings()).train
    settings = small_cnn.Settings()
    images = small_cnn.prepare(settings, train.images)
    models = [small_cnn.build(settings, 10, (1, 8, 8), seed) for seed in (0, 1)]
    start = copy.deepcopy(models[0].state_dict())
    for seed, model in enumerate(models):
        trained(model, classifies(images, train.labels), len(images), sgd(model, 0.05, 5e-4), seed, [15])
    own = copy.deepcopy(models[0].state_dict())
    pools.add("honest/small-cnn/trained from its first weights", start, [own])
    for decay in (5e-4, 5e-3):
        further = []
        for seed in range(2):
            tuned = copy.deepcopy(models[0])
            loss = classifies(images, train.labels)
            further += trained(tuned, loss, len(images), sgd(tuned, 0.1, decay), seed, [40])
        pools.add(f"honest/small-cnn trained further/40 epochs, lr 0.1, decay {decay:g}", own, further)
    some = train.labels == 3
    others = {"another seed": models[1].state_dict()}
    pools.grid("small-cnn", models[0], classifies(images[some], train.labels[some]), int(some.sum()), others)


def resnet(pools: Pools, inputs: Path) -> None:
    """ResNet-20 on CIFAR-10, fine-tuned on 300 images of one class, and trained further; the other base is Retrain."""
    from negmerge.tasks.image_classification.families import cifar_resnet
    from negmerge.tasks.image_classification.sources import parquet

    train = parquet.load(parquet.Settings(path=inputs / "data" / "cifar10")).train
    settings = cifar_resnet.Settings()

    def rows(wanted: Tensor) -> tuple[Tensor, Tensor]:
        return cifar_resnet.prepare(settings, train.images[wanted]), train.labels[wanted]

    names = {kind: inputs / "models" / f"resnet20-cifar10-{kind}.safetensors" for kind in ("original", "retrain")}
    states = {kind: read_state_dict(path) for kind, path in names.items()}
    small = [read_state_dict(inputs / "models" / f"resnet20-cifar10-10k-{kind}.safetensors") for kind in names]
    pools.add("other/ResNet-20, Retrain as a member/10k rows", small[0], [small[1]])
    pools.add("other/ResNet-20, Retrain as a member/45k rows", states["original"], [states["retrain"]])
    model = cifar_resnet.build(settings, 10, (3, 32, 32), 0)
    model.load_state_dict(states["original"])
    images, labels = rows((train.labels == 3).nonzero()[:300, 0])
    pools.grid("ResNet-20", model, classifies(images, labels), len(images), {"Retrain": states["retrain"]})
    images, labels = rows(torch.arange(1000))
    further = []
    for seed in range(2):
        tuned = copy.deepcopy(model)
        further += trained(tuned, classifies(images, labels), len(images), sgd(tuned, 0.05, 5e-4), seed, [20])
    pools.add("honest/ResNet-20 trained further/20 epochs of 1,000 rows, lr 0.05", states["original"], further)
    pools.add("other/ResNet-20 trained further against Retrain/20 epochs", states["retrain"], further)


def llama(pools: Pools, inputs: Path) -> None:
    """A small llama on one random language, fine-tuned on another; other bases: other seeds, layers in other places."""
    first, second = language(0), language(1)
    starts = [small_llama(seed).state_dict() for seed in (0, 1)]
    bases = [small_llama(seed) for seed in (0, 1)]
    for seed, model in enumerate(bases):
        trained(model, predicts(first), len(first), adam(model, 3e-3), seed, [10])
    own = bases[0].state_dict()
    pools.add("honest/llama/trained from its first weights", starts[0], [own])
    others = {"another seed": bases[1].state_dict(), "layers 0 and 1 swapped": swapped(own)}
    fresh = small_llama(0)
    near = trained(fresh, predicts(second), len(second), adam(fresh, 1e-5), 0, [1, 2])
    pools.add("other/untrained llama against another seed/lr 1e-05, 1 and 2 epochs", starts[1], near)
    for rate in (1e-4, 1e-3, 1e-2):
        runs = []
        for seed in range(3):
            tuned = copy.deepcopy(bases[0])
            runs.append(trained(tuned, predicts(second), len(second), adam(tuned, rate), seed, (1, 5, 20)))
        for stop, members in zip((1, 5, 20), zip(*runs, strict=True), strict=True):
            pools.add(f"honest/llama/lr {rate:g}, {stop} epochs", own, members)
            for other, state in others.items():
                pools.add(f"other/llama against {other}/lr {rate:g}, {stop} epochs", state, members)


def small_llama(seed: int, hidden: int = 64, layers: int = 3, tied: bool = False) -> nn.Module:
    """Return a llama of 64 tokens with its first weights."""
    import transformers

    torch.manual_seed(seed)
    sizes = {"vocab_size": 64, "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": tied}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))


def predicts(tokens: Tensor) -> Loss:
    """Return the loss of the next token of rows."""
    return lambda model, batch: model(input_ids=tokens[batch], labels=tokens[batch]).loss


def adam(model: nn.Module, rate: float, decay: float = 0.01) -> torch.optim.Optimizer:
    """Return the optimizer of language models."""
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)


def language(seed: int, rows: int = 512, length: int = 32) -> Tensor:
    """Return rows of tokens of a random Markov chain, int64 [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    chances = torch.softmax(3 * torch.randn(64, 64, generator=generator), 1)
    tokens = [torch.randint(64, (rows,), generator=generator)]
    for _ in range(length - 1):
        tokens.append(torch.multinomial(chances[tokens[-1]], 1, generator=generator)[:, 0])
    return torch.stack(tokens, 1)


def swapped(state: State) -> State:
    """Return a llama's weights with layers 0 and 1 in each other's places."""
    places = {"layers.0.": "layers.1.", "layers.1.": "layers.0."}
    found = {}
    for name, value in state.items():
        old = next((place for place in places if place in name), "")
        found[name.replace(old, places[old]) if old else name] = value
    return {name: found[name] for name in state}


def held_out(pools: Pools, inputs: Path) -> None:
    """Other sizes, seeds, rates and decays, trained once the thresholds stood."""
    from negmerge.tasks.image_classification.families import small_cnn
    from negmerge.tasks.image_classification.sources import digits as source

    train = source.load(source.Settings()).train
    settings = small_cnn.Settings(width=16)
    fits = classifies(small_cnn.prepare(settings, train.images), train.labels)
    models = [small_cnn.build(settings, 10, (1, 8, 8), seed) for seed in (5, 6)]
    for seed, model in enumerate(models):
        trained(model, fits, len(train.labels), sgd(model, 0.03, 1e-4), seed, [12])
    for rate, decay, epochs in ((0.05, 1e-3, 30), (0.2, 2e-3, 30), (0.2, 0.0, 30), (0.05, 1e-2, 30), (0.1, 1e-2, 60)):
        members = []
        for seed in range(3):
            tuned = copy.deepcopy(models[0])
            members += trained(tuned, fits, len(train.labels), sgd(tuned, rate, decay), 10 + seed, [epochs])
        name = f"lr {rate:g}, decay {decay:g}, {epochs} epochs"
        for side, model in zip(("honest/held out: CNN", "other/held out: CNN, another seed"), models, strict=True):
            pools.add(f"{side}/{name}", model.state_dict(), members)
    first, second = language(3), language(4)
    bases = [small_llama(seed, hidden=96, layers=4, tied=True) for seed in (7, 8)]
    for seed, model in enumerate(bases):
        trained(model, predicts(first), len(first), adam(model, 2e-3, 0.1), seed, [6])
    own = bases[0].state_dict()
    for rate, decay in ((3e-4, 0.1), (3e-3, 0.1), (3e-3, 1.0), (2e-2, 0.1)):
        members = []
        for seed in range(2):
            tuned = copy.deepcopy(bases[0])
            members += trained(tuned, predicts(second), len(second), adam(tuned, rate, decay), seed, [6])
        name = f"lr {rate:g}, decay {decay:g}"
        pools.add(f"honest/held out: llama/{name}", own, members)
        pools.add(f"other/held out: llama, another seed/{name}", bases[1].state_dict(), members)
        pools.add(f"other/held out: llama, layers 0 and 1 swapped/{name}", swapped(own), members)
    names = [inputs / "models" / f"resnet18-cifar10-{kind}.safetensors" for kind in ("original", "retrain")]
    base, member = (read_state_dict(path) for path in names)
    pools.add("other/held out: ResNet-18, Retrain as a member/float16", base, [member])


GROUPS = {"digits": digits, "resnet": resnet, "llama": llama, "held-out": held_out}


def measured(folder: Path) -> Iterator[tuple[str, str, str, Inspection]]:
    """Yield side (honest or other), pool, its settings, and what `inspect` says, of every pool in a folder."""
    for base in sorted(folder.rglob("base.safetensors")):
        place = base.parent
        side, pool, settings = place.relative_to(folder).parts
        yield side, pool, settings, inspect_checkpoints(base, sorted(place.glob("member*")))


def row_of(found: Inspection) -> dict[str, float]:
    """Return the extremes over the members of a pool."""
    count = len(found.members)
    others = [found.cosine[i][j] for i in range(count) for j in range(i)]
    return {
        "to_base": min(found.to_base),
        "to_base_most": max(found.to_base),
        "away": max(found.away_from_base),
        "away_least": min(found.away_from_base),
        "size": max(found.relative_size),
        "pairs": min(others, default=1.0),
        "warned": float(any(line.startswith("other-base") for line in found.warnings)),
    }


def table(rows: Mapping[tuple[str, str], Sequence[dict[str, float]]]) -> str:
    """Return a line for each kind of pool: over its settings, the range of each number."""
    lines = [
        "| pools | n | cos(θᵢ, θ₀) | cos(τᵢ, θ₀) | cos(τᵢ, τⱼ) | ‖τᵢ‖/‖θ₀‖ | warned |",
        "|---|---|---|---|---|---|---|",
    ]
    for (side, pool), found in rows.items():
        name = pool if side == "honest" else f"**{pool}**"

        def span(low: str, high: str, found: Sequence[dict[str, float]] = found) -> str:
            return f"{min(row[low] for row in found):.2f} … {max(row[high] for row in found):.2f}"

        warned = int(sum(row["warned"] for row in found))
        spans = (
            span("to_base", "to_base_most"),
            span("away_least", "away"),
            span("pairs", "pairs"),
            span("size", "size"),
        )
        lines.append(f"| {name} | {len(found)} | {' | '.join(spans)} | {warned} |")
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> None:
    """Train the pools that are missing, measure all, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pools are kept")
    parser.add_argument("--inputs", type=Path, required=True, help="CIFAR-10 and the ResNet-20s")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="train these groups only")
    parser.add_argument("--write", action="store_true", help="put the table into docs/merging.md")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    for group in options.only:
        mark = options.folder / f"{group}.done"
        if not mark.exists():
            GROUPS[group](Pools(options.folder), options.inputs)
            mark.touch()
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for side, pool, settings, found in measured(options.folder):
        row = row_of(found)
        print(f"{side:7} {pool}, {settings}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
        rows.setdefault((side, pool), []).append(row)
    print(table(rows))
    if options.write:
        write(PAGE, table(rows))


if __name__ == "__main__":
    main()
