"""The model card of a merged model: what was done with which inputs."""

from collections.abc import Mapping
from typing import Any

from negmerge.merging.output.base_card import Declared, front_matter
from negmerge.version import __version__

TAGS = ["machine-unlearning", "task-arithmetic", "negmerge"]


def model_card(
    facts: Mapping[str, Any], errors: Mapping[str, float] | None = None, declared: Declared | None = None
) -> str:
    """Return a README.md that says what was done with which inputs and, of an adapter, the error of each tensor.

    `declared` are licence and language of the base, which stay declared.
    """
    kind = "model" if errors is None else "adapter"
    return "\n".join(
        [
            front_matter(declared or {}, "transformers" if errors is None else "peft", TAGS),
            f"# A merged {kind}",
            "",
            *(_term_line(term, kind) for term in facts.get("terms", [facts])),
            *_buffers_lines(facts),
            *(line for line in map(_projection_line, facts.get("terms", [facts])) if line),
            "",
            "| input | file | bytes | hash |",
            "|---|---|---|---|",
            *_input_rows(facts),
            "",
            *([] if errors is None else _error_lines(facts, errors)),
            f"Made by negmerge {__version__}. `negmerge verify` compares the weights with the hash in their metadata.",
            "",
        ]
    )


def _term_line(term: Mapping[str, Any], kind: str) -> str:
    """Return the sentence of a term."""
    operation = "added to" if term["operation"] == "add" else "subtracted from"
    chosen = {**term["settings"], **({"seed": term["seed"]} if "seed" in term else {})}
    settings = ", ".join(f"{key} = {value}" for key, value in chosen.items()) or "none"
    origin = f", fine-tuned from `{term['origin']['name']}`," if "origin" in term else ""
    weighted = f", multiplied by the importance weights `{term['weights']['name']}`," if "weights" in term else ""
    return (
        f"The task vectors of {len(term['members'])} fine-tuned {kind}s{origin} were merged by `{term['method']}` "
        f"(settings: {settings}){weighted} and {operation} the base with α = {term['alpha']:g}."
    )


def _buffers_lines(facts: Mapping[str, Any]) -> list[str]:
    negated = facts.get("buffers") == "negate"
    return ["Running statistics of batch normalisation were merged like weights."] if negated else []


def _projection_line(term: Mapping[str, Any]) -> str:
    """Return the sentence of a term's projection; nothing where there was none."""
    done = term.get("projection")
    if done is None:
        return ""
    retain = done["retain"]
    return (
        f"The vector merged by `{term['method']}` was stripped of what acts on {retain['rows']:,} rows "
        f"({retain['about']}) by a retain projection of strength {done['strength']:g}; moments "
        f"`{done['moments']['hash']}`."
    )


def _input_rows(facts: Mapping[str, Any]) -> list[str]:
    """Return a row for the base and each input of the terms."""
    named = [("base", facts["base"])]
    terms = facts.get("terms", [facts])
    for number, term in enumerate(terms, start=1):
        of = f"term {number}, " if len(terms) > 1 else ""
        named += [(f"{of}{key}", term[key]) for key in ("origin", "weights") if key in term]
        named += [(f"{of}member {i}", item) for i, item in enumerate(term["members"], start=1)]
    return [
        f"| {label} | `{item['name']}` | {item['bytes']:,} | `{item.get('hash', 'not hashed')}` |"
        for label, item in named
    ]


def _error_lines(facts: Mapping[str, Any], errors: Mapping[str, float]) -> list[str]:
    return [
        f"The change was factored to rank {facts['adapter_rank']}. What that leaves out, relative to the change in the "
        f"Frobenius norm: {100 * facts['adapter_error']:.2f} % in all.",
        "",
        *_left_out_lines(facts),
        "| tensor | left out |",
        "|---|---|",
        *(f"| `{name}` | {100 * error:.2f} % |" for name, error in errors.items()),
        "",
    ]


def _left_out_lines(facts: Mapping[str, Any]) -> list[str]:
    names = facts.get("adapter_left_out")
    if not names:
        return []
    listed = ", ".join(f"`{name}`" for name in names)
    share = 100 * facts["adapter_left_out_share"]
    return [f"PEFT has no place for {listed}: this {share:.2f} % of the squared change is left out whole.", ""]
