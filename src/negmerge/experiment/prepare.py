"""The data stage: images decoded once, the split drawn once, the model family fitted to both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from negmerge import registry
from negmerge.data import Source
from negmerge.data.images import join_sources
from negmerge.data.splits import Split, draw_split, load_split, save_split, split_from_file
from negmerge.data.store import Store
from negmerge.errors import InputError
from negmerge.experiment.config import Config, DataConfig
from negmerge.experiment.rundir import RunDir
from negmerge.models._classifier import Classifier


@dataclass(frozen=True)
class Material:
    """What all seeds of a run share."""

    store: Store
    split: Split
    classifier: Classifier
    device: str
    classes: tuple[str, ...]
    fingerprint: str
    bytes: int


def prepare(place: RunDir, config: Config) -> Material:
    """Decode the images and draw the split, or take both from the run directory."""
    store = Store(place.private / "data")
    split_file = place.path / "split.json"
    if not (store.exists and split_file.exists()):
        source, split = load_data(config.data)
        save_split(split_file, split)
        store.write(
            {"train": (source.train.images, source.train.labels), "test": (source.test.images, source.test.labels)},
            {
                "classes": list(source.train.classes),
                "shape": list(source.train.images.shape[1:]),
                "fingerprint": f"{source.train.fingerprint()}+{source.test.fingerprint()}",
                "bytes": source.train.images.numel() + source.test.images.numel(),
            },
        )
    facts: dict[str, Any] = dict(store.facts)
    device = choose_device(config.device)
    return Material(
        store=store,
        split=load_split(split_file),
        classifier=make_classifier(config, len(facts["classes"]), facts["shape"], device),
        device=device,
        classes=tuple(facts["classes"]),
        fingerprint=facts["fingerprint"],
        bytes=facts["bytes"],
    )


def make_classifier(config: Config, classes: int, shape: Sequence[int], device: str) -> Classifier:
    """Return the family of a config for images of this shape (C, H, W), computed as the config says for the device."""
    channels, height, width = shape
    return Classifier(
        config.model.family, config.model.settings, classes, (channels, height, width), config.compute.on(device)
    )


def load_data(data: DataConfig) -> tuple[Source, Split]:
    """Load the source of a config, with that of the forget set joined where it is another one, and draw the split."""
    source = load_source(data.source, data.source_settings)
    if data.split is not None:
        return source, split_from_file(data.split, source.train, source.test)
    assert data.forget is not None
    other = None
    if data.forget.source is not None:
        joined = join_sources(source, load_source(data.forget.source, data.forget.source_settings))
        source, other = joined.source, joined
    split = draw_split(
        source.train,
        source.test,
        forget=data.forget,
        retain=data.retain,
        validation=data.validation,
        train_rows=data.train_rows,
        seed=data.seed,
        other=other,
    )
    return source, split


def load_source(name: str, settings: dict[str, Any]) -> Source:
    """Load a registered source."""
    module = registry.load("sources", name)
    source: Source = module.load(module.Settings(**settings))
    return source


def choose_device(wanted: str) -> str:
    """Return the device to use: for auto, cuda where there is one, then mps, then cpu.

    Raises InputError for a device that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    if not there[wanted]:
        raise InputError(f"device: {wanted} is not available on this machine; use auto or cpu")
    return wanted
