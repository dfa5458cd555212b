"""Class prompts of a zero-shot classifier, and the text head that is made of them."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from negmerge.checkpoints import hash_file, open_checkpoint, read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.tasks.zero_shot.files import TOKENIZER, ClipFiles

PLACE = "{}"  # where a template takes the class name
BATCH = 256


@dataclass(frozen=True)
class Prompts:
    """The class names of one data set and the templates that they are put into.

    >>> Prompts(("cat", "dog"), ("a photo of a {}.", "art of a {}.")).texts[0]
    ['a photo of a cat.', 'art of a cat.']
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        wrong = [template for template in self.templates if template.count(PLACE) != 1]
        if wrong or not self.templates:
            shown = repr(wrong[0]) if wrong else "no template"
            raise InputError(f"templates: {shown} must hold {{}} once, for the class name")

    @property
    def texts(self) -> list[list[str]]:
        """The prompts of each class."""
        return [[template.replace(PLACE, name) for template in self.templates] for name in self.classes]


def tokenize(files: ClipFiles, prompts: Sequence[Prompts]) -> tuple[Tensor, Tensor]:
    """Return the tokens int64 [m, length] of all prompts, data set by data set, and the class int64 [m] of each.

    Prompts are cut to the length that the model takes; all are padded to the longest of them.
    """
    texts = [text for group in prompts for of_class in group.texts for text in of_class]
    sizes = [len(group.templates) for group in prompts for _ in group.classes]
    length = files.config.text_config.max_position_embeddings
    tokens = files.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt").input_ids
    return tokens, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def text_head(embeddings: Tensor, classes: Tensor, count: int, scale: Tensor) -> Tensor:
    """Return the head [count, d] of prompt embeddings [m, d] with the class of each.

    h_c = exp(s) · n( mean over the prompts p of class c of n(e_p) ), n(x) = x / ‖x‖, s the logit scale.

    >>> text_head(torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0]), 1, torch.tensor(0.0))
    tensor([[0.7071, 0.7071]])
    """
    unit = functional.normalize(embeddings, dim=-1)
    sums = unit.new_zeros(count, unit.shape[1]).index_add(0, classes, unit)
    return scale.exp() * functional.normalize(sums, dim=-1)


@torch.no_grad()
def make_head(files: ClipFiles, prompts: Prompts) -> Tensor:
    """Return the head [classes, d], float32, of one data set; the text tower is let go again."""
    from transformers import CLIPTextModelWithProjection

    tower: Any = files.fill(CLIPTextModelWithProjection._from_config(files.config.text_config), ["text"])
    tokens, classes = tokenize(files, [prompts])
    embeddings = torch.cat([tower(input_ids=part).text_embeds for part in tokens.split(BATCH)])
    return text_head(embeddings, classes, len(prompts.classes), files.logit_scale)


def cached_heads(files: ClipFiles, prompts: Sequence[Prompts]) -> tuple[Path, ...]:
    """Return the file of the head of each data set, made where the cache does not have it.

    Its name is the hash of the model's files, the class names and the templates, so that a change of any makes a new
    head. The cache is the folder `negmerge/heads` in NEGMERGE_CACHE, or else in ~/.cache.
    """
    parts = [hash_file(file) for file in files.weight_files]
    read = [name for name in (*TOKENIZER, "config.json") if (files.folder / name).is_file()]
    parts += [f"{name} {hash_file(files.folder / name)}" for name in read]
    folder = Path(os.environ.get("NEGMERGE_CACHE", Path.home() / ".cache")) / "negmerge" / "heads"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for group in prompts:
        worded = json.dumps([group.classes, group.templates])
        key = hashlib.sha256("\n".join([*parts, worded]).encode()).hexdigest()
        found.append(folder / f"{key[:40]}.safetensors")
        if not found[-1].exists():
            write_state_dict(found[-1], {"head": make_head(files, group)}, {"prompts": worded})
    return tuple(found)


def load_heads(files: Sequence[Path]) -> Tensor:
    """Return the heads that were written to files as one [classes, d], one after the other."""
    return torch.cat([read_state_dict(file)["head"] for file in files])


def load_prompts(file: Path) -> Prompts:
    """Return the prompts that the head in a file was made of."""
    checkpoint = open_checkpoint(file)
    checkpoint.close()
    names, own = json.loads(checkpoint.metadata["prompts"])
    return Prompts(tuple(names), tuple(own))
