"""How long the scores of a language model take: 400 rows of TOFU, by their own answers, and with the other ones.

    python benchmarks/language_scores.py MODEL TOFU [--rows 400] [--threads 2] [--max-length 256] [--precision bf16]

MODEL is a folder of transformers or a hub id, TOFU a folder with its files or its hub id. The first twenty authors have
a paraphrased and five wrong answers to each of their questions. Every answer is read with its prompt, in one pass over
batches of like lengths. A first pass over eight rows warms up; each line is one pass after it.
"""

import argparse
import time
from collections.abc import Sequence

import torch

from negmerge.execution import torch_threads
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.causal_lm.task import CausalLM
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig
from training import machine

KINDS = {
    "probability, extraction, memorisation, min-k": ("confidence", "extraction", "memorised", "min_k"),
    "truth ratio and options too": ("confidence", "extraction", "memorised", "min_k", "truth_ratio", "options"),
}


def load(model: str, tofu: str, max_length: int, precision: str) -> CausalLM:
    """Return the task of the first twenty authors of TOFU."""
    data = DataConfig(
        source="tofu", path=tofu, authors=[0, 20], unseen=[20, 21], further=False, forget={"fraction": 0.5}
    )
    config = ModelConfig(family="hf", path=model, max_length=max_length)
    loaded = preparing.load_data(data, config)
    compute = Compute(precision=precision)
    return preparing.make_task(data, config, compute, loaded.tables, loaded.described)


def measure(task: CausalLM, rows: int) -> list[list[str]]:
    """Return a line for each kind of scores: what, answers, tokens, seconds, rows a second."""
    model, some = task.start(0).eval(), torch.arange(rows)
    sequences = task.reader.sequences
    lengths = sequences.offsets[1:] - sequences.offsets[:-1]
    own = [int(sequences.own[row]) for row in range(rows)]
    others = [sequence for row in range(rows) for sequence in sequences.others.get(row, ())]
    found = []
    for what, columns in KINDS.items():
        _observe(task, model, some[:8], columns)
        started = time.perf_counter()
        _observe(task, model, some, columns)
        seconds = time.perf_counter() - started
        read = own + (others if "truth_ratio" in columns else [])
        tokens = int(lengths[read].sum())
        found.append([what, f"{len(read):,}", f"{tokens:,}", f"{seconds:.3g}", f"{rows / seconds:.3g}"])
    return found


def _observe(task: CausalLM, model: torch.nn.Module, rows: torch.Tensor, columns: Sequence[str]) -> None:
    task.observe(model, {"rows": rows}, {"rows": columns})


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("tofu")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16")
    options = parser.parse_args(words)
    task = load(options.model, options.tofu, options.max_length, options.precision)
    with torch_threads(options.threads):
        lines = measure(task, min(options.rows, 400))
    print(f"{machine('cpu')}, {options.threads} thread(s), {options.precision}, one pass each\n")
    for line in (["scores", "answers", "tokens", "seconds", "rows/s"], ["---"] * 5, *lines):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
