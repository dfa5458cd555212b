"""Which member of a pool is bad: how often `inspect` names one that is, and how often one that is not.

    python benchmarks/bad_members.py FOLDER [--runs DIR…] [--write PAGE]

Trains fine-tunings of small networks at many rates, lengths and decays into FOLDER, once; a run directory in `--runs`
adds its base and pool. Honest pools are drawn from them, as mixed as they come; a hostile one is an honest one with one
bad member more. The table has what `negmerge.merging.health` says of both.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from other_base import Loss, State, adam, contiguous, language, predicts, sgd, small_llama, trained
from torch import Tensor, nn
from torch.nn import functional

from negmerge.checkpoints import read_state_dict
from negmerge.merging.health import UNLIKE, odd_members
from negmerge.seeding import derive_seed
from negmerge.tasks.image_classification.families import small_cnn
from negmerge.tasks.image_classification.sources import digits as source
from training import write

RATES, EPOCHS, DECAYS = (0.003, 0.01, 0.03, 0.1), (2, 10, 30), (0.0, 5e-4)
SIZES, POOLS = (5, 6, 9, 15), 40
BAD = ("sign-flipped", "noise", "untrained", "other rows", "diverged")


@dataclass
class Kind:
    """A base with honest members and bad ones, as vectors of all weights."""

    name: str
    honest: list[Tensor] = field(default_factory=list)
    bad: dict[str, list[Tensor]] = field(default_factory=lambda: {kind: [] for kind in BAD})


def vector(base: State, state: State) -> Tensor:
    """Return the task vector of a model as one tensor, without running statistics."""
    names = [name for name, value in base.items() if value.is_floating_point() and "running_" not in name]
    return torch.cat([(state[name].double() - base[name].double()).flatten() for name in names]).float()


def fine_tuned(
    kind: Kind,
    base: nn.Module,
    own: Loss,
    other: Loss,
    rows: int,
    optimizer: Callable[[nn.Module, float, float], torch.optim.Optimizer],
    rates: Sequence[float],
) -> Kind:
    """Fine-tune a base on its own rows at every rate, length and decay; and on other rows, hardly, and to ruin."""
    start = contiguous(base.state_dict())

    def tuned(
        loss: Loss,
        rate: float,
        decay: float,
        seed: int,
        stops: Sequence[int],
        count: int = rows,
    ) -> list[Tensor]:
        model = copy.deepcopy(base)
        states = trained(model, loss, count, optimizer(model, rate, decay), seed, stops)
        found = [vector(start, state) for state in states]
        return [one for one in found if one.isfinite().all()]

    for i, rate in enumerate(rates):
        for j, decay in enumerate(DECAYS):
            kind.honest += tuned(own, rate, decay, 10 * i + j, EPOCHS)
            kind.bad["other rows"] += tuned(other, rate, decay, 100 + 10 * i + j, EPOCHS[1:])
        kind.bad["untrained"] += tuned(own, rates[0] / 1000, 0.0, 200 + i, [1], 16)
        kind.bad["diverged"] += tuned(own, (10 + 10 * i) * rates[-1], 0.0, 300 + i, [3])
    return kind


def with_altered(kind: Kind) -> Kind:
    """Add the bad members that need no training: an honest one with its sign flipped, and noise of its size."""
    generator = torch.Generator().manual_seed(0)
    for delta in kind.honest[:: max(1, len(kind.honest) // 8)]:
        drawn = torch.randn(delta.shape, generator=generator)
        kind.bad["sign-flipped"].append(-delta)
        kind.bad["noise"].append(drawn * delta.norm() / drawn.norm())
    return kind


class Digits:
    """A small CNN on scikit-learn's digits, and rows of them."""

    def __init__(self) -> None:
        train = source.load(source.Settings()).train
        settings = small_cnn.Settings()
        self.images, self.labels = small_cnn.prepare(settings, train.images), train.labels
        self.model = small_cnn.build(settings, 10, (1, 8, 8), 0)
        trained(
            self.model,
            self.loss(torch.arange(len(self.labels))),
            len(self.labels),
            sgd(self.model, 0.05, 5e-4),
            0,
            [15],
        )

    def loss(self, rows: Tensor, smoothing: float = 0.0) -> Loss:
        """Return the cross-entropy of some rows."""
        images, labels = self.images[rows], self.labels[rows]
        return lambda model, batch: functional.cross_entropy(
            model(images[batch]), labels[batch], label_smoothing=smoothing
        )

    def drawn(self, among: Tensor, seed: int, count: int) -> Tensor:
        """Return so many of some rows."""
        return among[torch.randperm(len(among), generator=torch.Generator().manual_seed(seed))[:count]]


def digits_class() -> Kind:
    """Forget a class; the other rows are of the other classes."""
    data = Digits()
    own = (data.labels == 3).nonzero()[:, 0]
    rest = data.drawn((data.labels != 3).nonzero()[:, 0], 1, len(own))
    return fine_tuned(Kind("digits, a class"), data.model, data.loss(own), data.loss(rest), len(own), sgd, RATES)


def digits_rows() -> Kind:
    """Forget a tenth of the rows; the other rows are another tenth."""
    data = Digits()
    drawn = data.drawn(torch.arange(len(data.labels)), 2, 280)
    own, rest = data.loss(drawn[:140]), data.loss(drawn[140:])
    return fine_tuned(Kind("digits, rows at random"), data.model, own, rest, 140, sgd, RATES)


def digits_smoothing() -> Kind:
    """The same with label smoothing of 0 and 0.1 in one pool: two camps, as the published grid has."""
    data = Digits()
    drawn = data.drawn(torch.arange(len(data.labels)), 2, 280)
    kind = Kind("digits, rows at random, smoothing 0 and 0.1")
    for smoothing in (0.0, 0.1):
        own, rest = data.loss(drawn[:140], smoothing), data.loss(drawn[140:])
        fine_tuned(kind, data.model, own, rest, 140, sgd, RATES[1:])
    return kind


def llama() -> Kind:
    """A small llama on one random language, fine-tuned on another; the other rows are of a third."""
    first, second, third = language(0), language(1, 128), language(2, 128)
    model = small_llama(0)
    trained(model, predicts(first), len(first), adam(model, 3e-3), 0, [10])
    rates = (1e-4, 3e-4, 1e-3, 3e-3)
    return fine_tuned(Kind("llama, a language"), model, predicts(second), predicts(third), len(second), adam, rates)


def of_run(place: Path) -> Kind:
    """Return the base and the pool of a run directory."""
    base = read_state_dict(place / "base" / "model.safetensors")
    members = sorted((place / "private" / "pool").glob("*/model.safetensors"))
    kind = Kind(
        f"{place.resolve().parent.name}/{place.name}, {len(members)} members",
        [vector(base, read_state_dict(path)) for path in members],
    )
    trained_by_questions = place / "private" / "questions" / "trained"
    for name, key in (("other-rows", "other rows"), ("untrained", "untrained"), ("diverged", "diverged")):
        path = trained_by_questions / name / "model.safetensors"
        if path.exists():
            kind.bad[key].append(vector(base, read_state_dict(path)))
    return kind


TRAINED = {"class": digits_class, "rows": digits_rows, "smoothing": digits_smoothing, "llama": llama}


def kinds(folder: Path, runs: Sequence[Path]) -> list[Kind]:
    """Return all bases with their members; each is trained once and kept in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, make in TRAINED.items():
        file = folder / f"{name}.pt"
        if not file.exists():
            kind = make()
            partial = file.with_suffix(".partial")
            torch.save((kind.name, kind.honest, kind.bad), partial)
            partial.rename(file)
        found.append(Kind(*torch.load(file, weights_only=True)))
    return [with_altered(kind) for kind in (*found, *map(of_run, runs))]


class Gram:
    """Products of all vectors of a kind, so that a pool of some of them needs no vector again."""

    def __init__(self, kind: Kind) -> None:
        self.members = [*kind.honest, *(one for bad in BAD for one in kind.bad[bad])]
        self.honest = len(kind.honest)
        self.bad = [bad for bad in BAD for _ in kind.bad[bad]]
        whole = torch.stack(self.members).double()
        products = (whole @ whole.T).numpy()
        self.norms = np.sqrt(np.diag(products))
        self.cosine = products / np.outer(self.norms, self.norms)

    def cosines(self, places: Sequence[int]) -> list[list[float]]:
        """Return the cosines of some of them."""
        return self.cosine[np.ix_(places, places)].tolist()

    def odd(self, places: Sequence[int]) -> list[int]:
        """Return which of some of them are odd, by their place among these."""
        return odd_members(self.cosines(places), self.norms[list(places)].tolist())


def measured(kind: Kind) -> dict[str, list[float]]:
    """Return how honest pools, and each sort of bad member in them, are judged.

    Of honest pools, by size: whether anybody was accused; of bad members: whether each was named, and whether an honest
    one was.
    """
    gram = Gram(kind)
    found: dict[str, list[float]] = {f"accused {size}": [] for size in SIZES}
    found |= {f"{what} {bad}": [] for bad in BAD for what in ("named", "wrongly")}
    generator = torch.Generator().manual_seed(derive_seed(0, kind.name))
    for size in SIZES:
        for _ in range(POOLS if size < gram.honest else 0):
            drawn = torch.randperm(gram.honest, generator=generator)[:size].tolist()
            found[f"accused {size}"].append(float(bool(gram.odd(drawn))))
            for bad in BAD:
                places = [gram.honest + i for i, sort in enumerate(gram.bad) if sort == bad]
                if places:
                    at = places[int(torch.randint(len(places), (), generator=generator))]
                    named = gram.odd([*drawn, at])
                    found[f"named {bad}"].append(float(size in named))
                    found[f"wrongly {bad}"].append(float(any(i != size for i in named)))
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return a line for each kind of pool; shares are counts of pools."""

    def share(values: Sequence[float]) -> str:
        return f"{int(sum(values))} of {len(values)}" if values else "–"

    sizes = [f"N = {size}" for size in SIZES]
    header = ["pools", *(f"honest accused, {size}" for size in sizes), *(f"{bad}: named" for bad in BAD)]
    header.append("an honest one named beside a bad one")
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for name, one in found.items():
        wrongly = [value for bad in BAD for value in one[f"wrongly {bad}"]]
        cells = [share(one[f"accused {size}"]) for size in SIZES]
        cells += [share(one[f"named {bad}"]) for bad in BAD]
        lines.append("| " + " | ".join([name, *cells, share(wrongly)]) + " |")
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> None:
    """Train what is missing, judge all pools, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the members are kept")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], metavar="DIR", help="run directories to add")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    found = {kind.name: measured(kind) for kind in kinds(options.folder, options.runs)}
    print(f"named below {UNLIKE} of what the others have in common\n{table(found)}")
    if options.write:
        write(options.write, table(found))


if __name__ == "__main__":
    main()
