"""How fast negmerge trains on images, against a DataLoader over decoded PIL images, in one run.

    python benchmarks/training.py [--device auto] [--repeats 5] [--write docs/results/training-speed.md]

Images are of CIFAR-10's size, with random pixels: neither side looks at them. Contenders run in turns, so that a busy
moment of the machine meets all of them, after one untimed run each; worker processes stay alive between runs.
"""

import argparse
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from negmerge.experiment.choices import ComputeConfig
from negmerge.experiment.prepare import choose_device
from negmerge.tasks.image_classification.batches import ImageBatches, resident
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.image_classification.pixels import CIFAR
from negmerge.tasks.image_classification.store import tables_of
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.training import TrainSettings
from negmerge.training.fitting import fit_rows

SETTINGS = TrainSettings(optimizer="sgd", lr=0.01, epochs=1, batch_size=128, augment="crop+flip", schedule="constant")
END = "<!-- end -->\n"


@dataclass
class Contender:
    """One line of a table: a function that passes over so many images, and its seconds."""

    text: str
    epoch: Callable[[], None]
    images: int
    peer: bool
    seconds: list[float] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [self.images / seconds for seconds in self.seconds]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Decoded PIL images, each augmented and normalised on its own, as training scripts do."""

    def __init__(self, images: Tensor, labels: Tensor, augmented: bool = True) -> None:
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.labels, self.augmented = labels.tolist(), augmented
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in CIFAR)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures[index]
        if self.augmented:
            width, height = picture.size
            left, top = random.randint(0, 8), random.randint(0, 8)
            picture = ImageOps.expand(picture, 4).crop((left, top, left + width, top + height))
            if random.random() < 0.5:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div_(255)
        return pixels.sub_(self.mean).div_(self.std), self.labels[index]


def loader(images: Tensor, labels: Tensor, workers: int) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(
        Pictures(images, labels),
        batch_size=SETTINGS.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def pipelines(images: Tensor, labels: Tensor, device: str, workers: list[int]) -> Iterator[Contender]:
    """The input alone: from images in memory to normalised, augmented float32 batches on the device."""
    classifier = Classifier("cifar-resnet", {}, 10, (3, 32, 32), ComputeConfig().on(device))
    batches = ImageBatches(*resident(images, labels, device), SETTINGS, 0)

    def ours() -> None:
        for batch, _ in batches(0):
            classifier.prepare(batch.to(device))
        wait(device)

    def theirs(source: DataLoader[tuple[Tensor, int]]) -> None:
        for batch, truth in source:
            batch.to(device, non_blocking=True), truth.to(device, non_blocking=True)
        wait(device)

    yield Contender("**negmerge**", ours, len(labels), False)
    for count in workers:
        source = loader(images, labels, count)
        yield Contender(f"DataLoader + PIL, {count} workers", lambda s=source: theirs(s), len(labels), True)


def steps(images: Tensor, labels: Tensor, device: str, workers: list[int]) -> Iterator[Contender]:
    """Whole training steps of ResNet-20: input, forward, backward, SGD."""
    usual = ComputeConfig().on(device)
    for text, compute in (("as it comes", usual), ("precision: bf16", ComputeConfig(precision="bf16").on(device))):
        classifier = Classifier("cifar-resnet", {}, 10, (3, 32, 32), compute)
        model = classifier.place(classifier.build(), device)
        table = ImageSet(images, labels, tuple(str(number) for number in range(10)))
        task = ImageClassification(classifier, tables_of(Source(table, table)))

        def ours(task: ImageClassification = task, model: nn.Module = model) -> None:
            with task.classifier.compute.float_products():
                fit_rows(task, model, torch.arange(len(labels)), SETTINGS, seed=0)
            wait(device)

        layout = "channels-last" if compute.channels_last else "channels-first"
        yield Contender(f"**negmerge**, {text} ({layout}, {compute.precision})", ours, len(labels), False)
    for count in workers:
        source = loader(images, labels, count)
        model = Classifier("cifar-resnet", {}, 10, (3, 32, 32)).build().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=SETTINGS.lr, momentum=0.9)

        def theirs(
            source: DataLoader[tuple[Tensor, int]] = source,
            model: nn.Module = model,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> None:
            model.train()
            for batch, truth in source:
                logits = model(batch.to(device, non_blocking=True))
                optimizer.zero_grad()
                functional.cross_entropy(logits, truth.to(device, non_blocking=True)).backward()
                optimizer.step()
            wait(device)

        text = f"DataLoader + PIL, {count} workers (channels-first, float32)"
        yield Contender(text, theirs, len(labels), True)


def measure(name: str, contenders: list[Contender], repeats: int) -> str:
    """Run all in turns and return the table; what negmerge is faster by counts against the fastest peer."""
    for turn in range(repeats + 1):
        for contender in contenders:
            started = time.perf_counter()
            contender.epoch()
            seconds = time.perf_counter() - started
            if turn:  # the first starts workers and compiles
                contender.seconds.append(seconds)
                print(f"{turn}/{repeats} {contender.text:<60} {contender.rates[-1]:12,.0f} images/s", file=sys.stderr)
    best = max(contender.median for contender in contenders if contender.peer)
    lines = [
        f"### {name}",
        "",
        "| what | median images/s | from – to | × the fastest DataLoader |",
        "|---|---|---|---|",
    ]
    for contender in contenders:
        rates = contender.rates
        lines.append(
            f"| {contender.text} | {contender.median:,.0f} | {min(rates):,.0f} – {max(rates):,.0f} "
            f"| {contender.median / best:.1f} |"
        )
    return "\n".join([*lines, ""])


def machine(device: str) -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    names = [found[0].partition(":")[2].strip() if found else platform.processor(), f"{os.cpu_count()} cores"]
    if device == "cuda":
        names.append(torch.cuda.get_device_name())
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{', '.join(names)}, {torch.get_num_threads()} threads, device {device}; {versions}"


def write(page: Path, text: str, mark: str = "tables") -> None:
    """Put the tables between the marks of a page; one that is not there is begun with the marks alone."""
    begin = f"<!-- {mark} -->\n"
    before, start, rest = (page.read_text() if page.exists() else begin + END).partition(begin)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"{page} has no lines {begin.strip()} and {END.strip()}; add them where the tables belong")
    page.write_text(f"{before}{begin}{text}{END}{after}")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=20_000, help="images of the pipeline's epoch")
    parser.add_argument("--step-images", type=int, help="images of the epoch of steps  [1,920 on cpu, else 20,000]")
    parser.add_argument("--workers", default=f"0,{os.cpu_count()}", help="of the DataLoader, one line for each")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this page")
    options = parser.parse_args(words)
    device = choose_device(options.device)
    workers = [int(count) for count in options.workers.split(",")]
    stepped = options.step_images or (1_920 if device == "cpu" else 20_000)
    generator = torch.Generator().manual_seed(0)
    count = max(options.images, stepped)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    parts = []
    for name, make, size in (
        ("Input pipeline", pipelines, options.images),
        ("Training step, ResNet-20", steps, stepped),
    ):
        contenders = list(make(images[:size], labels[:size], device, workers))
        title = f"{name}: {size:,} images of 32 × 32, batches of {SETTINGS.batch_size}, crop and flip"
        parts.append(measure(title, contenders, options.repeats))
        del contenders  # ends the workers
        print(parts[-1])
    if options.write:
        write(options.write, "\n".join([f"{machine(device)}; n = {options.repeats}.\n", *parts]))


if __name__ == "__main__":
    main()
