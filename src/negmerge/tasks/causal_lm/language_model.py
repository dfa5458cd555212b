"""A causal language model of transformers, from a folder or the hub: its prompts, its tokens, its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError, listing
from negmerge.seeding import seeded
from negmerge.tasks.misfits import misfits
from negmerge.tasks.transformers_model import LANGUAGE, TransformersModel, quiet, reason
from negmerge.tasks.transformers_tokenizer import TOKENIZER, tokenizer_of

SUMMARY = "any AutoModelForCausalLM of transformers: a folder or a hub id, with its own tokenizer"
LONGEST = 1024  # tokens of a window, unless the model reads fewer or max_length says otherwise
PLAIN = "Question: {prompt}\nAnswer:"
MARK = "\N{WHITE SQUARE CONTAINING BLACK SMALL SQUARE}answer"  # stands for an answer while a template is read


class Settings(BaseModel):
    """Where the model is, how a prompt is put to it, and how much it reads at once."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, description="a folder that save_pretrained wrote, or a hub id (owner/name@commit)")
    template: str = Field(
        "auto",
        description="chat: the tokenizer's own; a text with {prompt}; auto: chat where there is one, else "
        + repr(PLAIN),
    )
    system: str | None = Field(None, description="the system message of a chat; the template's own unless given")
    max_length: int | None = Field(None, ge=8, description="tokens that are read at once; at most 1024 if unset")
    overlap: int | None = Field(
        None, ge=1, description="tokens of a longer text that two windows share; a quarter of a window if unset"
    )
    gradient_checkpointing: bool = Field(False, description="keep less while training, and compute it again")
    end: bool = Field(
        True,
        description="whether the label of the end belongs to an answer; false where answers go on, as in cloze tests",
    )
    scratch: bool = Field(False, description="base: {train} begins with drawn weights, not with the model's")

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value not in ("auto", "chat") and "{prompt}" not in value:
            raise ValueError("write auto, chat, or a text with {prompt} in it")
        return value


@dataclass(frozen=True)
class LanguageModel:
    """A model by its settings; it holds names and numbers only, so it can be sent to another process."""

    settings: Settings

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    @cached_property
    def found(self) -> TransformersModel:
        """The folder. Raises InputError for what is no causal language model."""
        found = TransformersModel(self.settings.path)
        if found.architecture and not found.architecture.endswith(LANGUAGE):
            raise InputError(
                f"{self.settings.path} is a {found.architecture}, no causal language model; name the task that it is "
                "of (task: text-classification), or give another model"
            )
        return found

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return tokenizer_of(self.settings.path)

    @cached_property
    def context(self) -> int:
        """Tokens that are read at once."""
        config = self.found.config
        known = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
        own = min(n for n in (self.tokenizer.model_max_length, *known, 2**30) if isinstance(n, int) and n > 0)
        wanted = self.settings.max_length
        if wanted is not None and wanted > own:
            raise InputError(f"model.max_length: {wanted} is more than {self.settings.path} reads ({own} tokens)")
        return wanted or min(LONGEST, own)

    @property
    def overlap(self) -> int:
        """Tokens of a longer text that two windows share."""
        wanted = self.settings.overlap or max(1, self.context // 4)
        if wanted >= self.context:
            raise InputError(f"model.overlap: {wanted} must be less than max_length ({self.context})")
        return wanted

    @property
    def padding(self) -> int:
        """The number of the token behind the end; it is masked, so it may be any that the model has a vector for."""
        known = getattr(self.found.config.get_text_config(), "vocab_size", None) or 2**62
        found = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(number for number in found if number is not None and number < known)

    # prompts and answers as tokens

    @cached_property
    def chats(self) -> bool:
        """Whether prompts are put by the tokenizer's chat template. Raises InputError where it must and has none."""
        has = bool(getattr(self.tokenizer, "chat_template", None))
        if self.settings.template == "chat" and not has:
            raise InputError(
                f"model.template: {self.settings.path} has no chat template; write a text with {{prompt}}, or auto"
            )
        if self.settings.system is not None and not (has and self.settings.template in ("auto", "chat")):
            raise InputError("model.system: only a chat template has a place for it; leave it out")
        return has and self.settings.template in ("auto", "chat")

    def prompt(self, text: str | None) -> list[int]:
        """Return the tokens of a prompt, up to where the answer begins; of a text (None) those before its first."""
        if text is None:
            begin = self.tokenizer.bos_token_id
            return [] if begin is None or not self._begins else [begin]
        if self.chats:
            return self._ids(self._render([*self._system, _says("user", text)], begin_answer=True), special=False)
        template = PLAIN if self.settings.template == "auto" else self.settings.template
        ids = self._ids(template.replace("{prompt}", text), special=True)
        return ids[:-1] if ids and self._ends_itself and ids[-1] == self.tokenizer.eos_token_id else ids

    def answer(self, text: str, to: str | None) -> list[int]:
        """Return the tokens of an answer to a prompt, without the label of its end; of a text to None."""
        blank = to is not None and not self.chats and not self._template_ends_in_space
        return self._ids(f" {text}" if blank and not text[:1].isspace() else text, special=False)

    @cached_property
    def end(self) -> list[int]:
        """The label of an answer's end: what the chat template puts there, else the end of a text; perhaps nothing."""
        if not self.settings.end:
            return []
        if self.chats:
            rendered = self._render([*self._system, _says("user", "?"), _says("assistant", MARK)])
            behind = rendered.rpartition(MARK)[2]
            ids = self._ids(behind, special=False)
            if ids and ids[0] in self.tokenizer.all_special_ids:
                return ids[:1]
        eos = self.tokenizer.eos_token_id
        return [] if eos is None else [eos]

    @property
    def _system(self) -> list[dict[str, str]]:
        return [] if self.settings.system is None else [_says("system", self.settings.system)]

    @property
    def _template_ends_in_space(self) -> bool:
        return self.settings.template not in ("auto", "chat") and self.settings.template.endswith((" ", "\n"))

    @cached_property
    def _begins(self) -> bool:
        ids = self._ids("a", special=True)
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    @cached_property
    def _ends_itself(self) -> bool:
        return self._ids("a", special=True) != self._ids("a", special=True)[:1] and (
            self._ids("a", special=True)[-1] == self.tokenizer.eos_token_id
        )

    def _render(self, messages: Sequence[dict[str, str]], begin_answer: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=begin_answer
            )
        except Exception as error:  # whatever a template raises of messages that it does not know
            raise InputError(f"{self.settings.path}: its chat template fails ({reason(error)})") from None
        return text

    def _ids(self, text: str, special: bool) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return list(found)

    # modules and weights

    def build(self, seed: int = 0) -> nn.Module:
        """Return the network that the config describes, float32, initialised from the seed as transformers does."""
        from transformers import AutoModelForCausalLM

        config = self.found.config
        config.dtype = torch.float32
        try:
            with quiet():
                model = seeded(lambda: AutoModelForCausalLM.from_config(config), seed)
        except ValueError as error:  # a model of a kind that has no such head
            raise InputError(
                f"{self.settings.path}: transformers has no causal model of it ({reason(error)})"
            ) from None
        if self.settings.gradient_checkpointing:
            checkpointing: Any = model
            enable = getattr(checkpointing, "activation_checkpointing_enable", None)  # the later of its two names
            try:
                (enable or checkpointing.gradient_checkpointing_enable)({"use_reentrant": False})
            except ValueError:
                raise InputError(
                    f"model.gradient_checkpointing: {self.found.architecture} knows none; leave it out"
                ) from None
        return model

    def start(self, seed: int) -> nn.Module:
        """Return what a training of the base begins with: the model's weights, unless it is trained from scratch."""
        model = self.build(seed)
        if not self.settings.scratch:
            load(model, self.pretrained(), self.settings.path)
        return model

    def pretrained(self) -> dict[str, Tensor]:
        """Return the model's own weights, float32, each tied tensor once."""
        from transformers import AutoModelForCausalLM

        return once(self.found.weights(AutoModelForCausalLM, "give a folder that holds the whole model"))

    def open(self, checkpoint: Path) -> nn.Module:
        """Return the network with the weights of a checkpoint. Raises InputError for one that does not fit."""
        model = self.build()
        load(model, read_state_dict(checkpoint), str(checkpoint))
        return model

    def files(self) -> dict[str, Path]:
        """Return the files of config, weights and tokenizer, by the names that a record shows."""
        return self.found.files(*TOKENIZER)

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write a model and its tokenizer as a folder that from_pretrained reads."""
        saved: Any = model
        with quiet():
            saved.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def once(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, those that share their memory under the first of their names only."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    kept = {}
    for name, value in state.items():
        place = (value.data_ptr(), tuple(value.shape))
        if value.numel() and place in seen:
            continue
        seen.add(place)
        kept[name] = value
    return kept


def load(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Put weights into a model; tied tensors may stand under one of their names. Raises InputError for a misfit."""
    whole = model.state_dict()
    wanted = once(whole)
    tied = {name: value for name, value in whole.items() if name not in wanted}
    problems = misfits({name: value for name, value in weights.items() if name not in tied}, wanted)
    if problems:
        headline = f"{where} does not fit the model; {len(problems)} tensors differ (check model: in the config):"
        raise InputError(listing(headline, problems))
    model.load_state_dict({name: weights[name] for name in wanted}, strict=False)


def _says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
