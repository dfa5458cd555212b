"""What a merged model says of itself in the header of its weights: inputs, method, hashes of what OUT holds."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.pieces import hash_bytes, placeholder
from negmerge.checkpoints.writing import Layout, in_file_order
from negmerge.merging.buffers import Policy
from negmerge.merging.hashes import InputHashes, Stamps
from negmerge.merging.merger import Merger
from negmerge.merging.output.weights import FilePlan
from negmerge.merging.plan import Plan
from negmerge.merging.term import Term
from negmerge.version import __version__

KEY = "negmerge"
# Where the hub's cache keeps a model: its owner and name, and the commit.
SNAPSHOT = re.compile(r"models--(?P<repository>[^/]+)/snapshots/(?P<commit>[^/]+)")
MOST_LINKS = 40


class Places:
    """Texts that stand for hashes, of the same length, until these are known."""

    def __init__(self) -> None:
        self._finds: dict[str, Callable[[], str]] = {}
        self._found: dict[str, str] = {}
        self._checks: list[Callable[[], None]] = []

    def check_after(self, check: Callable[[], None]) -> None:
        """Have `check` called once all hashes are found; it raises what makes them void."""
        self._checks.append(check)

    def new(self, find: Callable[[], str]) -> str:
        """Return the place of a hash that `find` will give."""
        text = placeholder(len(self._finds))
        self._finds[text] = find
        return text

    def found(self) -> Mapping[str, str]:
        """Return the hash of each place, found in the order in which the places were made."""
        for text, find in self._finds.items():
            if text not in self._found:
                self._found[text] = find()
        for check in self._checks:
            check()
        return self._found

    def filled(self, text: str) -> str:
        """Return a text with the hashes that are known by now in their places."""
        for place, found in self._found.items():
            text = text.replace(place, found)
        return text


def merge_facts(
    plan: Plan,
    include: Sequence[str],
    exclude: Sequence[str],
    hashed: bool,
    hashes: InputHashes,
    places: Places,
    *,
    buffers: Policy = "keep",
    recipe: bytes | None = None,
) -> dict[str, Any]:
    """Return what a merge does with which inputs, as it stands in the record and on the card.

    Hashes of inputs have places, which are filled once the inputs were read; there are none where none are taken. An
    input of several terms has one; one that was written to meanwhile is refused then. Of a recipe the hash of its text
    stands there.
    """
    inputs: list[Checkpoint] = []
    known: dict[tuple[Path, ...], dict[str, Any]] = {}

    def of_input(checkpoint: Checkpoint) -> dict[str, Any]:
        if checkpoint.files not in known:
            inputs.append(checkpoint)
            facts = {"name": input_name(checkpoint), "bytes": sum(file.stat().st_size for file in checkpoint.files)}
            known[checkpoint.files] = {**facts, "hash": places.new(lambda: hashes.of(checkpoint))} if hashed else facts
        return known[checkpoint.files]

    def of_term(term: Term) -> dict[str, Any]:
        origin = {} if term.pool.base is plan.base else {"origin": of_input(term.pool.base)}
        weights = {} if term.weights is None else {"weights": of_input(term.weights)}
        return {
            **method_facts(term.merger),
            "operation": "add" if term.add else "subtract",
            "alpha": term.alpha,
            **origin,
            **weights,
            **({} if term.change is None else {"projection": term.change.facts}),
            "members": [of_input(member) for member in term.pool.members],
        }

    shared = {
        "include": list(include),
        "exclude": list(exclude),
        **({} if buffers == "keep" else {"buffers": buffers}),
        **({} if recipe is None else {"recipe": hash_bytes(recipe)}),
        "base": of_input(plan.base),
    }
    terms = [of_term(term) for term in plan.terms]
    places.check_after(Stamps(inputs).check)
    return {**shared, **terms[0]} if recipe is None else {**shared, "terms": terms}


def method_facts(merger: Merger) -> dict[str, Any]:
    """Return a method's name, its settings, and the seed of one that draws."""
    seed = {"seed": merger.seed} if merger.random else {}
    return {"method": merger.name, "settings": merger.settings, **seed}


def input_name(checkpoint: Checkpoint) -> str:
    """Return how the record names an input: repository and commit of the hub, else its folder and file."""
    given = checkpoint.path.as_posix()
    if "@" in given and not checkpoint.path.exists():
        return given
    for place in _ways(checkpoint.path):
        if cached := SNAPSHOT.search(f"{place}/"):
            return f"{cached['repository'].replace('--', '/')}@{cached['commit']}"
    resolved = checkpoint.path.resolve()
    # A name may hold bytes that are no text, which no header can.
    return os.fsencode(f"{resolved.parent.name}/{resolved.name}").decode(errors="replace")


def _ways(path: Path) -> Iterator[Path]:
    """Yield a path and where its links lead, one after the other: files in the hub's cache are links themselves."""
    for _ in range(MOST_LINKS):
        yield path.absolute()
        yield path.parent.resolve() / path.name
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def metadata(
    facts: Mapping[str, Any], files: Sequence[FilePlan], beside: Mapping[str, str] | None, places: Places
) -> tuple[dict[str, str], Callable[[Mapping[str, str]], Mapping[str, str]]]:
    """Return the metadata of files of weights, with the record, and the function that fills its places (`seal`).

    Each file carries the whole record. Of one file (`beside` is None) it holds the hash of the tensors (`data`) and of
    their names, dtypes and shapes (`layout`); of a folder those of every file of weights, by name, and the hashes of
    the files beside them.
    """
    data: dict[str, str] = {}

    def of(plan: FilePlan) -> dict[str, str]:
        return {"data": places.new(lambda: data[plan.path.name]), "layout": layout_hash(in_file_order(plan.layout))}

    if beside is None:
        record = {"version": __version__, **facts, **of(files[0])}
    else:
        weights = {plan.path.name: of(plan) for plan in files}
        record = {"version": __version__, **facts, "weights": weights, "beside": dict(beside)}

    def seal(found: Mapping[str, str]) -> Mapping[str, str]:
        data.update(found)
        return places.found()

    return {"format": "pt", KEY: json.dumps(record, ensure_ascii=False)}, seal


def recipe_beside(output: Path) -> Path:
    """Return where the recipe of an OUT of one file lies.

    >>> recipe_beside(Path("unlearned.safetensors")).name
    'unlearned.recipe.yaml'
    """
    return output.with_suffix(".recipe.yaml")


def layout_hash(layout: Layout) -> str:
    """Return the hash of the lines `name<tab>dtype<tab>shape` of tensors in the order in which they lie in a file.

    dtype is safetensors' code, shape the sizes joined by ×.
    """
    lines = (f"{name}\t{dtype.code}\t{'×'.join(map(str, shape))}\n" for name, dtype, shape in layout)
    return hash_bytes("".join(lines).encode())
