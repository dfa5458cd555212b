"""The model card of a merged model: what was done with which inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

from negmerge import __version__
from negmerge.merging.output.base_card import Declared, front_matter

TAGS = ["machine-unlearning", "task-arithmetic", "negmerge"]


def model_card(
    facts: Mapping[str, Any], errors: Mapping[str, float] | None = None, declared: Declared | None = None
) -> str:
    """Return a README.md that says what was done with which inputs and, of an adapter, the error of each tensor.

    `declared` are licence and language of the base, which stay declared.
    """
    operation = "added to" if facts["operation"] == "add" else "subtracted from"
    chosen = {**facts["settings"], **({"seed": facts["seed"]} if "seed" in facts else {})}
    settings = ", ".join(f"{key} = {value}" for key, value in chosen.items()) or "none"
    inputs: Sequence[Mapping[str, Any]] = [facts["base"], *facts["members"]]
    rows = [
        f"| {f'member {i}' if i else 'base'} | `{item['name']}` | {item['bytes']:,} "
        f"| `{item.get('hash', 'not hashed')}` |"
        for i, item in enumerate(inputs)
    ]
    kind = "model" if errors is None else "adapter"
    return "\n".join(
        [
            front_matter(declared or {}, "transformers" if errors is None else "peft", TAGS),
            f"# A merged {kind}",
            "",
            f"The task vectors of {len(facts['members'])} fine-tuned {kind}s were merged by `{facts['method']}` "
            f"(settings: {settings}) and {operation} the base with α = {facts['alpha']:g}.",
            "",
            "| input | file | bytes | hash |",
            "|---|---|---|---|",
            *rows,
            "",
            *([] if errors is None else _error_lines(facts, errors)),
            f"Made by negmerge {__version__}. `negmerge verify` compares the weights with the hash in their metadata.",
            "",
        ]
    )


def _error_lines(facts: Mapping[str, Any], errors: Mapping[str, float]) -> list[str]:
    return [
        f"The change was factored to rank {facts['adapter_rank']}. What that leaves out, relative to the change in the "
        f"Frobenius norm: {100 * facts['adapter_error']:.2f} % in all.",
        "",
        "| tensor | left out |",
        "|---|---|",
        *(f"| `{name}` | {100 * error:.2f} % |" for name, error in errors.items()),
        "",
    ]
