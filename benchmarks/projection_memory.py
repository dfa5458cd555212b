"""What the projection of a language model of 1.2 billion parameters takes: moments, and a merged vector projected.

    python benchmarks/projection_memory.py FOLDER [--rows 8] [--length 64] [--layers 16]

The model has the shape of Llama 3.2 1B in bfloat16, with drawn weights: only time and memory are looked at. Moments
are taken in turns, as `negmerge moments` takes them; of the vector the embedding (which is the output layer, too) and
one block are projected, and the time of all blocks is the block's, times their number.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from negmerge.projection import MomentRows, Moments, Projection, project_vector, write_moments

GIB = 2**30


def peak() -> float:
    """Return the largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def model(layers: int) -> LlamaForCausalLM:
    """Return a model of that shape, its weights repeated from a small drawn tile."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        made = LlamaForCausalLM(config)
    made = made.to(torch.bfloat16).to_empty(device="cpu")
    made.tie_weights()
    tile = 0.02 * torch.randn(2**16 + 1, generator=torch.Generator().manual_seed(0))
    for parameter in made.parameters():
        flat = parameter.data.view(-1)
        flat.copy_(
            tile.repeat(-(-len(flat) // len(tile)))[: len(flat)] if parameter.dim() > 1 else torch.ones(len(flat))
        )
    for name, buffer in made.named_buffers():
        if "inv_freq" in name:
            buffer.copy_(1.0 / 10_000 ** (torch.arange(len(buffer)) / len(buffer)))
    return made.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--layers", type=int, default=16)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    made = model(options.layers)
    count = sum(parameter.numel() for parameter in made.parameters())
    print(f"{count / 1e9:.2f} billion parameters, {peak():.1f} GiB")
    draw = torch.Generator().manual_seed(1)
    parts = [torch.randint(0, 128_256, (options.rows, options.length), generator=draw) for _ in range(2)]

    def of(ids: Tensor) -> MomentRows:
        return MomentRows(lambda: iter(ids.split(4)), len(ids), "drawn tokens")

    turns: list[int] = []

    def tell(_: str, **facts: int) -> None:
        turns.append(facts["of"])

    file, started = options.folder / "moments.safetensors", time.perf_counter()
    write_moments(
        file, made, of(parts[0]), of(parts[1]), lambda m, ids: m(input_ids=ids), parts[0][:1], {},
        tell=tell,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    tokens = 2 * options.rows * options.length
    size = file.stat().st_size / GIB
    print(
        f"moments: {tokens} tokens in {turns[0]} turns, {seconds:.0f} s ({1000 * seconds / tokens:.0f} ms a token), "
        f"file {size:.1f} GiB, peak {peak():.1f} GiB",
        flush=True,
    )
    names = [name for name, _ in made.named_parameters() if name == "model.embed_tokens.weight" or ".layers.0." in name]
    shapes = {name: made.get_parameter(name).shape for name in names}
    del made
    for chosen, what in ((names[:1], "embedding"), (names[1:], "block")):
        save_file({name: torch.randn(shapes[name]) for name in chosen}, options.folder / "vector.safetensors")
        started = time.perf_counter()
        with Moments(file) as moments:
            target = options.folder / "projected.safetensors"
            report = project_vector(Projection(moments, 10.0), options.folder / "vector.safetensors", target)
        seconds = time.perf_counter() - started
        print(f"{what}: {len(report.layers)} layers projected in {seconds:.0f} s, peak {peak():.1f} GiB", flush=True)
    for name in ("vector", "projected", "moments"):
        (options.folder / f"{name}.safetensors").unlink()


if __name__ == "__main__":
    main()
