"""A model of transformers, in a folder or on the hub: what it is, which classes it tells apart, which files it is."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from negmerge.checkpoints import find, open_checkpoint
from negmerge.errors import InputError, shortened
from negmerge.seeding import seeded

LANGUAGE = ("ForCausalLM", "LMHeadModel")
# What the name of an architecture ends in, and what such a model does in words.
OTHER_KINDS = {
    "ForObjectDetection": "detection",
    "ForZeroShotObjectDetection": "detection",
    "ForSemanticSegmentation": "segmentation",
    "ForInstanceSegmentation": "segmentation",
    "ForUniversalSegmentation": "segmentation",
    "ForImageSegmentation": "segmentation",
    "SamModel": "segmentation",
    "Sam2Model": "segmentation",
    "ForDepthEstimation": "depth estimation",
    "ForTokenClassification": "token classification",
    "ForQuestionAnswering": "question answering",
    "ForMultipleChoice": "multiple choice",
    **dict.fromkeys(LANGUAGE, "a causal language model"),
    "ForConditionalGeneration": "generation",
    "ForVideoClassification": "video classification",
    "ForAudioClassification": "audio classification",
}
CLASSIFIERS = {"text": ("ForSequenceClassification",), "image": ("ForImageClassification", "WithTeacher")}
GENERIC = re.compile(r"LABEL_\d+")
LabelRule = Literal["names", "order", "new"]
LABELS = "the classes' outputs: found by the model's own names, taken in the order of the data, or a new head's"


@dataclass(frozen=True)
class TransformersModel:
    """A folder as `save_pretrained` writes it, or a model of the hub (`owner/name`, `owner/name@revision`)."""

    path: str

    @cached_property
    def _found(self) -> tuple[Path, Path]:
        return find(Path(self.path))

    @cached_property
    def folder(self) -> Path:
        """The local folder. Raises InputError where it is none of transformers, and for a pipeline of diffusers."""
        place, shown = self._found
        if (place / "model_index.json").is_file():
            raise InputError(f"{shown} is a diffusion pipeline; diffusion models are not supported, classifiers are")
        if not (place / "config.json").is_file():
            raise InputError(f"{shown} has no config.json; give a folder that save_pretrained wrote, or a hub id")
        return place

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The content of config.json. Raises InputError where it is no JSON object."""
        try:
            raw = json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError):
            raw = None
        if not isinstance(raw, dict):
            raise InputError(f"{self.path}: config.json is not a JSON object; save the model again")
        if "_class_name" in raw and "model_type" not in raw:
            raise InputError(
                f"{self.path} is a {raw['_class_name']} of diffusers; diffusion models are not supported, only "
                "classifiers are"
            )
        return raw

    @property
    def architecture(self) -> str:
        """The class that the model was saved from; empty where the config does not say."""
        found = self.raw.get("architectures")
        return str(found[0]) if isinstance(found, list) and found else ""

    def check(self, kind: Literal["text", "image"], new_head: bool = False) -> None:
        """Raise InputError, naming what the model is, unless it tells classes of texts or images apart, one a row.

        With a `new_head` the body of any model will do.
        """
        name, raw = self.architecture, self.raw
        if raw.get("problem_type") == "multi_label_classification":
            raise InputError(f"{self.path} is a multi-label model; only one label a row is supported")
        if new_head:
            return
        other = next((word for ending, word in OTHER_KINDS.items() if name.endswith(ending)), None)
        if other is None and name.endswith(CLASSIFIERS["text"]) and _hears(name):
            other = "audio classification"
        if other is not None:
            advice = "write task: causal-lm" if "language" in other else "give a classifier"
            raise InputError(f"{self.path} is made for {other} ({name}), which is no classifier; {advice}")
        if name and not name.endswith(CLASSIFIERS[kind]):
            advice = "in a config, labels: new trains one"
            if raw.get("model_type") == "clip":
                advice = "in a config, model: {family: clip} classifies by it"
            elif name.endswith((*CLASSIFIERS["text"], *CLASSIFIERS["image"])):
                advice = "give rows of its own kind"
            raise InputError(f"{self.path} is a {name}, which has no head that classifies {kind}s; {advice}")
        if raw.get("problem_type") == "regression" or len(self.own_labels) == 1:
            raise InputError(f"{self.path} has one output, a regression; only classification is supported")

    @property
    def config(self) -> Any:
        """The model's `PretrainedConfig`, made anew each time: a module may write into its own."""
        from transformers import AutoConfig

        try:
            with quiet():
                return AutoConfig.from_pretrained(self.folder)
        except Exception as error:  # whatever a config makes its class raise
            raise InputError(f"{self.path}: transformers cannot read its config.json ({reason(error)})") from None

    def sized(self, kind: Literal["text", "image"], classes: int, new_head: bool) -> Any:
        """Return the config of a float32 classifier of texts or images with so many classes.

        Raises InputError as `check` does, and for another number than the model's own, unless its head is new.
        """
        import torch

        self.check(kind, new_head)
        config = self.config
        if new_head:
            config.num_labels = classes
        elif config.num_labels != classes:
            raise InputError(f"{self.path} has {config.num_labels} outputs, not {classes}; write labels: new")
        config.dtype = torch.float32
        return config

    def drawn(self, auto: Any, config: Any, seed: int, what: str) -> Any:
        """Return the network that an Auto class of transformers makes of a config, its weights drawn from the seed."""
        try:
            with quiet():
                return seeded(lambda: auto.from_config(config), seed)
        except ValueError as error:  # a model of a kind that has no such head
            raise InputError(f"{self.path}: transformers has no {what} of it ({reason(error)})") from None

    @cached_property
    def own_labels(self) -> tuple[str, ...]:
        """The names of the model's outputs, in their order."""
        names: dict[int, str] = self.config.id2label
        return tuple(str(names[number]) for number in sorted(names))

    def order_labels(self, classes: Sequence[str], rule: LabelRule) -> tuple[str, ...]:
        """Return the names of the outputs for data with these classes.

        names: the model's own; outputs that are only numbered (LABEL_0, …) have no names, and go by the order. order:
        those of the data, as many as there are outputs. new: those of the data.

        Raises InputError for a class that no output is named after, and for another number of classes.
        """
        own = self.own_labels
        if rule == "new":
            return tuple(classes)
        if rule == "order" or all(GENERIC.fullmatch(name) for name in own):
            if len(own) != len(classes):
                raise InputError(
                    f"{self.path} has {len(own)} outputs, the data {len(classes)} classes "
                    f"({shortened(classes, 4)}); give the data it was trained on, or write labels: new"
                )
            return tuple(classes)
        strangers = [name for name in classes if name not in own]
        if strangers or len(set(own)) < len(own):
            raise InputError(
                f"{self.path} has no output named {shortened(strangers or own, 4)}: its classes are "
                f"{shortened(own, 6)}; name the data's so, or write labels: order (both in the same order) or new"
            )
        return own

    def files(self, *further: str) -> dict[str, Path]:
        """Return config, weights and further files that are there, by the names that a record shows."""
        checkpoint = open_checkpoint(self.folder)
        checkpoint.close()
        named = [self.folder / name for name in ("config.json", *further)]
        files = [file for file in named if file.is_file()] + list(checkpoint.files)
        return {str(self._found[1] / file.name): file for file in files}

    def weights(self, auto: Any, advice: str = "give a trained classifier, or labels: new") -> dict[str, Any]:
        """Return the state dict, float32, of the model as an Auto class of transformers loads it.

        Raises InputError where it cannot be loaded, and, with the advice, for tensors that its files lack.
        """
        state, missing = self._load(auto)
        if missing:
            raise InputError(f"{self.path} lacks {shortened(missing, 4)}; {advice}")
        return state

    def begin(self, auto: Any, classes: int, seed: int) -> dict[str, Any]:
        """Return the same for a number of classes, its head drawn from the seed where the files have none that fits."""
        return self._load(auto, seed, num_labels=classes, ignore_mismatched_sizes=True)[0]

    def _load(self, auto: Any, seed: int = 0, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
        """Return the state dict of a loaded model, and the names of what its files lack."""
        import torch

        infos = []

        def load() -> Any:
            model, info = auto.from_pretrained(self.folder, dtype=torch.float32, output_loading_info=True, **arguments)
            infos.append(info)
            return model

        try:
            with quiet():
                state = seeded(load, seed).state_dict()
        except Exception as error:  # transformers raises its own, safetensors' and builtin errors
            raise InputError(f"{self.path}: transformers cannot load it ({reason(error)})") from None
        return {name: value.detach().contiguous() for name, value in state.items()}, sorted(infos[0]["missing_keys"])


def _hears(architecture: str) -> bool:
    """Whether an architecture that is called a classifier of sequences takes sounds, and no texts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES as SOUNDS

    return architecture in SOUNDS.values()


def reason(error: Exception) -> str:
    """Return an error of somebody else's in half a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing bars and notes to stderr; afterwards it does as before."""
    from transformers.utils import logging as own

    level, bars = own.get_verbosity(), own.is_progress_bar_enabled()
    own.set_verbosity(logging.CRITICAL)
    own.disable_progress_bar()
    try:
        yield
    finally:
        own.set_verbosity(level)
        if bars:
            own.enable_progress_bar()
