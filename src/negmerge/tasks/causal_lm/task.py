"""Questions and texts that a causal language model knows: rows, models, losses and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.scores import Columns, Score
from negmerge.tasks.causal_lm.batches import NOTHING, Batch, Reader, SequenceBatches, pad
from negmerge.tasks.causal_lm.columns import COLUMNS
from negmerge.tasks.causal_lm.generating import continuations
from negmerge.tasks.causal_lm.language_model import LanguageModel, once
from negmerge.tasks.causal_lm.logits import answer_logits
from negmerge.tasks.causal_lm.observing import observe_parts
from negmerge.tasks.causal_lm.scores import PROBABILITY, language_scores
from negmerge.tasks.causal_lm.store import Sequences
from negmerge.tasks.compute import Compute
from negmerge.tasks.rows.store import BothTables, StoredRows
from negmerge.tasks.task import PASSAGE, Task

PLAIN = Compute()


@dataclass(frozen=True)
class CausalLM(Task):
    """A causal language model, and the questions with answers, or texts, in a store."""

    model: LanguageModel
    tables: BothTables[Sequences]
    facts: Mapping[str, Any]
    compute: Compute = PLAIN

    NAME: ClassVar[str] = "causal-lm"
    NOUN: ClassVar[str] = "question"
    MEASURE: ClassVar[str] = "probability"
    KNOWN: ClassVar[str] = PROBABILITY
    BY_GROUP: ClassVar[tuple[tuple[tuple[str, ...], ...], str]] = ((("retain",), ("forget",)), PROBABILITY)
    COLUMNS: ClassVar[tuple[str, ...]] = tuple(COLUMNS)

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "tables": self.tables, "facts": self.facts, "compute": self.compute}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def reader(self) -> Reader:
        """What cuts the rows into windows and puts them into batches."""
        return Reader(self.tables.both, self.model.context, self.model.overlap, self.model.padding)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Probability and extraction strength on every part, and what else the rows have answers for."""
        return language_scores(self.NOUN, self.facts["others"], list(self.further_parts()))

    def rows(self) -> StoredRows:
        """Return the groups of all rows, their names, and the hash of everything."""
        return self.tables.rows()

    def further_parts(self) -> dict[str, Tensor]:
        """Return the rows of parts that no request is about, behind train and test rows."""
        found, start = {}, len(self.rows()) - sum(self.facts["further"].values())
        for name, size in self.facts["further"].items():
            found[name] = torch.arange(start, start + size)
            start += size
        return found

    def template(self) -> nn.Module:
        """Return the model as built."""
        return self.model.build()

    def start(self, seed: int) -> nn.Module:
        """Return the model with the weights that a training of the base begins with."""
        return self.model.start(seed)

    def pretrained(self) -> dict[str, Tensor]:
        """Return the weights that the model comes with."""
        return self.model.pretrained()

    def open(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return the model with the weights of a checkpoint."""
        return self.model.open(checkpoint).to(device).eval()

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device."""
        return model.to(device)

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all tensors of a model, tied ones once."""
        return {name: value.cpu().contiguous() for name, value in once(dict(model.state_dict())).items()}

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> SequenceBatches:
        """Return shuffled batches of rows of like lengths; a row longer than the context is in several windows."""
        return SequenceBatches(self.reader, rows, settings, seed, device)

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """Return the windows of these rows as one batch, padded to the longest, on the device."""
        return self.reader.batch(self.reader.of_rows(rows)).to(device)

    def run_model(self, model: nn.Module, batch: Batch) -> Tensor:
        """Pass a batch through a model."""
        called: Any = model
        with self.compute.autocast(batch.ids.device.type):
            logits: Tensor = called(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
        return logits

    def real_tokens(self, batch: Batch) -> Tensor:
        """Return where a batch has tokens and no padding, bool [b, L]."""
        return batch.mask.bool()

    def likelihoods(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return for each window Σ log p of its counted tokens, float32 [b] with a graph, and their number [b]."""
        batch = batch.to(next(model.parameters()).device)
        logits, labels = answer_logits(self.compute, model, batch)
        logs = -functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=NOTHING, reduction="none"
        )
        return logs.view(labels.shape).sum(1), (labels != NOTHING).sum(1)

    def loss(self, model: nn.Module, batch: Batch, settings: Any = None) -> Tensor:
        """Return −Σ log p / (number of tokens) over all counted tokens of a batch: answers alone, in nats per token."""
        sums, counts = self.likelihoods(model, batch)
        return -sums.sum() / counts.sum()

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return ℓ of each window: −Σ log p / (number of tokens)."""
        sums, counts = self.likelihoods(model, batch)
        return -sums / counts

    def refuse(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the prompts of a batch, each with a refusal in the place of its answer, drawn uniformly.

        Of a text, which has no prompt, the first token is taken for one.
        """
        refusals, sequences = self.facts["refusals"], self.reader.sequences
        drawn = torch.randint(len(refusals), (len(batch.sequences),), generator=generator).tolist()
        parts, starts = [], []
        for sequence, number in zip(batch.sequences.tolist(), drawn, strict=True):
            refusal = torch.tensor(refusals[number], dtype=torch.int64)
            room = self.model.context - len(refusal)
            prompt = sequences.ids(sequence)[: int(sequences.starts[sequence])][-room:]
            parts.append(torch.cat([prompt, refusal]))
            starts.append(len(prompt))
        return pad(parts, starts, batch.sequences.tolist(), self.model.padding).to(batch.ids.device)

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Return the blocks of a model, in their order: those of its longest list of modules."""
        lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=[])

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return columns of parts, as far as they are asked for."""
        return observe_parts(self.model, self.reader, self.facts["ends"], self.compute, model, parts, columns)

    def answers(self, model: nn.Module, rows: Tensor) -> list[tuple[str, str, str]]:
        """Return prompt, right answer and what the model says by itself, of each row; of a text its beginning."""
        sequences = self.reader.sequences
        said = continuations(self.model, sequences, self.compute, model, rows.tolist())
        return [(sequences.text(row)[0], said[row].right, said[row].text) for row in rows.tolist()]

    def export(self, model: nn.Module, folder: Path) -> bool:
        """Write a model and its tokenizer as a folder that from_pretrained reads."""
        self.model.export(model, folder)
        return True


@dataclass(frozen=True)
class CausalLMOfPassages(CausalLM):
    """The same of texts alone, which answer nothing."""

    NOUN: ClassVar[str] = PASSAGE
