"""The data stage: images decoded once, the split drawn once, the model family fitted to both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from negmerge import registry
from negmerge.errors import InputError
from negmerge.experiment.config import Config, DataConfig, ModelConfig
from negmerge.experiment.record import file_entry
from negmerge.experiment.rundir import RunDir
from negmerge.requests.splits import Split, draw_split, load_split, save_split, split_from_file
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.images import Source, join_sources
from negmerge.tasks.image_classification.named import NamedSet
from negmerge.tasks.image_classification.store import Store


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
    model_files: tuple[dict[str, Any], ...] = ()  # path, bytes and hash of each that the family reads


@dataclass(frozen=True)
class Loaded:
    """The tables of a run with their split, and the class names and prompt templates of each source in them."""

    source: Source
    split: Split
    prompts: list[tuple[list[str], list[str] | None]]


def prepare(place: RunDir, config: Config) -> Material:
    """Decode the images and draw the split, or take both from the run directory.

    Raises InputError where the family's files are not those that the run was begun with.
    """
    store = Store(place.private / "data")
    split_file = place.path / "split.json"
    files = _model_files(config.model)
    if not (store.exists and split_file.exists()):
        loaded = load_data(config.data, config.model)
        source = loaded.source
        save_split(split_file, loaded.split)
        store.write(
            {"train": (source.train.images, source.train.labels), "test": (source.test.images, source.test.labels)},
            {
                "classes": list(source.train.classes),
                "shape": list(source.train.images.shape[1:]),
                "fingerprint": f"{source.train.fingerprint()}+{source.test.fingerprint()}",
                "bytes": source.train.images.numel() + source.test.images.numel(),
                "prompts": loaded.prompts,
                "model_files": files,
            },
        )
    facts: dict[str, Any] = dict(store.facts)
    _check_same_files(facts.get("model_files", files), files, place)
    device = choose_device(config.device)
    return Material(
        store=store,
        split=load_split(split_file),
        classifier=make_classifier(config, len(facts["classes"]), facts["shape"], device, facts["prompts"]),
        device=device,
        classes=tuple(facts["classes"]),
        fingerprint=facts["fingerprint"],
        bytes=facts["bytes"],
        model_files=tuple(files),
    )


def load_data(data: DataConfig, model: ModelConfig) -> Loaded:
    """Load the source of a config, with that of the forget set joined where it is another one, and draw the split.

    Images come in the form that the family wants, unless the source's settings say otherwise. Classes of the same name
    are one, but for a family that classifies by prompts, where each source keeps its own.

    Raises InputError for sources that the family refuses, before any image is decoded where their classes are known.
    """
    _check_prompts(model, [(name, *_known_prompts(name)) for name in _source_names(data)])
    form = _image_form(model)
    source = load_source(data.source, {**form, **data.source_settings})
    prompts = [_prompts(data.source, source)]
    if data.split is not None:
        return Loaded(source, split_from_file(data.split, source.train, source.test), prompts)
    assert data.forget is not None
    other = None
    if data.forget.source is not None:
        second = load_source(data.forget.source, {**form, **data.forget.source_settings})
        prompts.append(_prompts(data.forget.source, second))
        joined = join_sources(source, second, unite=not _has_prompts(model))
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
    return Loaded(source, split, prompts)


def make_classifier(
    config: Config,
    classes: int,
    shape: Sequence[int],
    device: str,
    prompts: Sequence[tuple[Sequence[str], Sequence[str] | None]],
) -> Classifier:
    """Return the family of a config for images of this shape (C, H, W), computed as the config says for the device.

    A family that classifies by prompts gets a text head for each source, made of its class names and templates.
    """
    channels, height, width = shape
    model, compute = config.model, config.compute.on(device)
    if not _has_prompts(model):
        return Classifier(model.family, model.settings, classes, (channels, height, width), compute)
    sized = zip(_source_names(config.data), prompts, strict=True)
    _check_prompts(model, [(name, len(names), own) for name, (names, own) in sized])
    module = registry.load("families", model.family)
    head = module.prepare_head(module.Settings(**model.settings), prompts)
    heads = tuple(len(names) for names, _ in prompts)
    settings = module.pinned(module.Settings(**model.settings)) if hasattr(module, "pinned") else model.settings
    return Classifier(model.family, settings, classes, (channels, height, width), compute, heads, head)


def _has_prompts(model: ModelConfig) -> bool:
    return hasattr(registry.load("families", model.family), "prepare_head")


def _check_prompts(model: ModelConfig, sources: Sequence[tuple[str, int, Sequence[str] | None]]) -> None:
    module = registry.load("families", model.family)
    if hasattr(module, "check_prompts"):
        module.check_prompts(module.Settings(**model.settings), sources)


def _known_prompts(source: str) -> tuple[int, Sequence[str] | None]:
    """Return the number of classes and the templates that a source is known to have; 0 classes where it is not."""
    facts = getattr(registry.load("sources", source), "FACTS", None)
    return (facts.count, facts.templates) if isinstance(facts, NamedSet) else (0, None)


def _source_names(data: DataConfig) -> list[str]:
    """Return the sources of a run in the order of their heads."""
    second = data.forget.source if data.forget is not None else None
    return [data.source] if second is None else [data.source, second]


def _image_form(model: ModelConfig) -> dict[str, Any]:
    module = registry.load("families", model.family)
    return dict(module.image_form(module.Settings(**model.settings))) if hasattr(module, "image_form") else {}


def _model_files(model: ModelConfig) -> list[dict[str, Any]]:
    module = registry.load("families", model.family)
    found = module.model_files(module.Settings(**model.settings)) if hasattr(module, "model_files") else {}
    return [file_entry(path, shown) for shown, path in found.items()]


def _check_same_files(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], place: RunDir) -> None:
    """Raise InputError unless the files are the same by name and content; a model of the hub may have a new commit."""
    ours, theirs = ({Path(file["path"]).name: file for file in files} for files in (before, now))
    changed = [n for n in {**ours, **theirs} if ours.get(n, {}).get("hash") != theirs.get(n, {}).get("hash")]
    if changed:
        first = ours.get(changed[0]) or theirs[changed[0]]
        raise InputError(
            f"{place.path} was begun with another model: {', '.join(changed)} in {Path(first['path']).parent} changed "
            "since; put back what was there, or give another directory with -o"
        )


def _prompts(name: str, source: Source) -> tuple[list[str], list[str] | None]:
    templates = getattr(registry.load("sources", name), "TEMPLATES", None)
    return list(source.train.classes), None if templates is None else list(templates)


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
