"""A CLIP model on disk: its configuration, its tensors by tower, its pixels' statistics, its tokenizer."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from negmerge.checkpoints import find, open_checkpoint
from negmerge.errors import InputError, listing
from negmerge.tasks.misfits import misfits

# OpenAI's models by the names of the paper.
KNOWN = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
}
TOWERS = {
    "vision": ("vision_model.", "visual_projection."),
    "text": ("text_model.", "text_projection."),
    "scale": ("logit_scale",),
}
SETTINGS = ("config.json", "preprocessor_config.json")
TOKENIZER = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
POSITIONS = ".position_ids"  # a counter that old files keep; transformers makes it anew
# The statistics of CLIP's own images; a model without preprocessor_config.json was made with them.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipFiles:
    """The folder of a `CLIPModel` as transformers saves it, or the same from the hub."""

    path: str

    @cached_property
    def folder(self) -> Path:
        """The local folder; a hub id is fetched. Raises InputError where there is none."""
        place, shown = self._found
        if not (place / "config.json").is_file():
            lacks = "holds no config.json" if place.is_dir() else "is a file"
            raise InputError(
                f"{shown} {lacks}; give the folder of a CLIPModel, a hub id, or ViT-B/32 (examples/clip/"
                "convert_open_clip.py makes such a folder of an open_clip checkpoint)"
            )
        return place

    @cached_property
    def _found(self) -> tuple[Path, Path]:
        return find(Path(KNOWN.get(self.path, self.path)))

    @cached_property
    def used(self) -> dict[str, Path]:
        """The files that the model is made of, by the names that a record shows; those of the hub with their commit."""
        named = [self.folder / name for name in (*SETTINGS, *TOKENIZER)]
        files = [file for file in named if file.is_file()] + list(self.weight_files)
        return {str(self._found[1] / file.name): file for file in files}

    @property
    def config(self) -> Any:
        """The `CLIPConfig`, its towers' projections as wide as the model's. Raises InputError for another model.

        It is made anew each time: a module writes into its own which attention it uses.
        """
        from transformers import CLIPConfig

        raw = self._json("config.json")
        if raw.get("model_type") != "clip":
            raise InputError(f"{self.path} is a {raw.get('model_type', 'nameless')!r} model, not a clip model")
        config: Any = CLIPConfig(**raw)
        for tower in (config.text_config, config.vision_config):
            tower.projection_dim = config.projection_dim
        return config

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the channels, of pixels in 0 … 1."""
        if not (self.folder / "preprocessor_config.json").is_file():
            return MEAN, STD
        raw = self._json("preprocessor_config.json")
        return tuple(raw.get("image_mean", MEAN)), tuple(raw.get("image_std", STD))

    def read(self, towers: Iterable[str]) -> dict[str, Tensor]:
        """Return the tensors of some towers, in their own dtype; nothing else is read from the file."""
        prefixes = tuple(prefix for tower in towers for prefix in TOWERS[tower])
        checkpoint = open_checkpoint(self.folder)
        try:
            names = [n for n in checkpoint.names if n.startswith(prefixes) and not n.endswith(POSITIONS)]
            return {name: checkpoint.read(name).reshape(checkpoint.shape(name)) for name in names}
        finally:
            checkpoint.close()

    @cached_property
    def logit_scale(self) -> Tensor:
        """The logarithm of what cosines are multiplied by, a scalar."""
        return self.read(["scale"])["logit_scale"].float().reshape(())

    def fill(self, module: Any, towers: Iterable[str]) -> Any:
        """Load the tensors of some towers into a module that has them and no others, and return it in eval mode.

        Raises InputError that lists the tensors that differ.
        """
        weights, wanted = self.read(towers), module.state_dict()
        wrong = misfits(weights, wanted)
        if wrong:
            raise InputError(listing(f"{self.path} does not fit its config.json; {len(wrong)} tensors differ:", wrong))
        module.load_state_dict(weights)
        return module.float().eval()

    @cached_property
    def tokenizer(self) -> Any:
        """CLIP's tokenizer. Raises InputError where the folder has none."""
        from transformers import CLIPTokenizer

        if not any((self.folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise InputError(f"{self.path} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); add it")
        return CLIPTokenizer.from_pretrained(self.folder)

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""
        checkpoint = open_checkpoint(self.folder)
        checkpoint.close()
        return tuple(checkpoint.files)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            raw = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            raw = None
        if not isinstance(raw, dict):
            raise InputError(f"{self.folder / name} is not a JSON object; save the model again")
        return raw
