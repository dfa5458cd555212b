"""Any text classifier of transformers, from a folder or the hub, with its own tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from negmerge.tasks.transformers_model import LABELS, LabelRule, TransformersModel, quiet
from negmerge.tasks.transformers_tokenizer import TOKENIZER, tokenizer_of

SUMMARY = "any AutoModelForSequenceClassification of transformers: a folder or a hub id, with its own tokenizer"
LONGEST = 512  # tokens, unless the model reads fewer or max_length says otherwise


class Settings(BaseModel):
    """Where the model is, and how its outputs are named."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, description="a folder that save_pretrained wrote, or a hub id (owner/name@commit)")
    labels: LabelRule = Field("names", description=LABELS)
    max_length: int | None = Field(None, ge=2, description="tokens of a text that are read; at most 512 if unset")
    scratch: bool = Field(False, description="base: {train} begins with drawn weights, not with the model's")


def build(settings: Settings, classes: int, seed: int = 0) -> nn.Module:
    """Return the network that the config describes, float32, initialised from the seed as transformers does.

    Raises InputError for a model that is no classifier of texts, and for another number of classes than its own.
    """
    from transformers import AutoModelForSequenceClassification

    found = TransformersModel(settings.path)
    config = found.sized("text", classes, settings.labels == "new")
    config.pad_token_id = padding(settings)
    model: nn.Module = found.drawn(AutoModelForSequenceClassification, config, seed, "text classifier")
    return model


def encode(settings: Settings, texts: Sequence[str]) -> list[list[int]]:
    """Return the token numbers of each text as the model's tokenizer has them, cut at max_length."""
    tokenizer = tokenizer_of(settings.path)
    config = TransformersModel(settings.path).config
    own = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", LONGEST))
    rows: list[list[int]] = tokenizer(
        list(texts), truncation=True, max_length=settings.max_length or min(LONGEST, own), padding=False
    )["input_ids"]
    return [row or [padding(settings)] for row in rows]


def logits(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Return logits [b, classes]."""
    outputs: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return outputs


def padding(settings: Settings) -> int:
    """Return the number of the padding token; of a tokenizer without one, that of the end of a text, or else 0."""
    tokenizer = tokenizer_of(settings.path)
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(number for number in found if number is not None)


def outputs(settings: Settings, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the outputs for data with these classes."""
    model = TransformersModel(settings.path)
    model.check("text", settings.labels == "new")
    return model.order_labels(classes, settings.labels)


def start(settings: Settings, classes: int, seed: int = 0) -> nn.Module:
    """Return what a training of the base begins with: the model's weights, a new head as drawn from the seed."""
    if settings.scratch:
        return build(settings, classes, seed)
    from transformers import AutoModelForSequenceClassification

    model = build(settings, classes, seed)
    weights = TransformersModel(settings.path).begin(AutoModelForSequenceClassification, classes, seed)
    model.load_state_dict(weights)
    return model


def pretrained(settings: Settings) -> dict[str, Tensor]:
    """Return the model's own weights, float32."""
    from transformers import AutoModelForSequenceClassification

    model = TransformersModel(settings.path)
    model.check("text")
    return model.weights(AutoModelForSequenceClassification)


def model_files(settings: Settings) -> dict[str, Path]:
    """Return the files of config, weights and tokenizer."""
    return TransformersModel(settings.path).files(*TOKENIZER)


def export(settings: Settings, model: nn.Module, folder: Path) -> None:
    """Write a model and its tokenizer as a folder that from_pretrained reads."""
    saved: Any = model
    with quiet():
        saved.save_pretrained(folder)
        tokenizer_of(settings.path).save_pretrained(folder)
