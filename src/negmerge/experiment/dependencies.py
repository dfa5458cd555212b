"""Who depends on what: of which files and inputs each file of a run was made."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from negmerge.experiment.config import RunConfig
from negmerge.experiment.evidence import judged_row
from negmerge.experiment.inputs import BASE, DATA, MODEL, REFERENCE
from negmerge.experiment.methods import describe

ROWS = "rows"  # role of the rows as a whole: what all data files came to
SPLIT = "split.json"
WEIGHTS = "model.safetensors"


def made_from(config: RunConfig, names: Sequence[str], inputs: Mapping[str, str]) -> dict[str, list[str]]:
    """Return for each file of a run, by its name, the names of the files and inputs that it was made of.

    `inputs` are the roles of the inputs by name. What nothing is known of has an empty list.
    """
    return {name: _Place(config, names, inputs, name).sources() for name in names}


class _Place:
    """A file of a run, in the folder of a seed (`prefix`) or of the run itself."""

    def __init__(self, config: RunConfig, names: Sequence[str], inputs: Mapping[str, str], name: str) -> None:
        first, _, rest = name.partition("/")
        seeded = first.startswith("seed-") and bool(rest)
        self.prefix, self.rest = (f"{first}/", rest) if seeded else ("", name)
        self.config, self.names, self.inputs, self.name = config, names, inputs, name

    def sources(self) -> list[str]:
        """Return what the file was made of, each once, without itself."""
        parts = self.rest.split("/")
        if parts[0] == "private" and len(parts) > 2:
            found = self._private(parts)
        elif parts[0] in ("base", "reference", "methods"):
            found = self._models(parts)
        else:
            found = self._single()
        return [name for name in dict.fromkeys(found) if name != self.name]

    def _single(self) -> list[str]:
        if self.rest == SPLIT:
            return self._rows()
        if self.rest == "pool.json":
            return [*self._own(f"base/{WEIGHTS}"), *self._pool(), SPLIT]
        if self.rest == "leave-one-out.json":
            return [*self._own(f"base/{WEIGHTS}"), *self._pool()]
        if self.rest.startswith("evidence/") or self.rest == "shown.json":
            judged = self._own(f"methods/{judged_row(self.config)}/{WEIGHTS}")
            return [*judged, *self._originals(), *self._models_beside(), SPLIT]
        if self.rest == "results.json":
            return self._matching(
                "*scores.json", "*outcome.json", "*training.json", "*pool.json", "*leave-one-out.json", "*shown.json"
            )
        return []

    def _models(self, parts: list[str]) -> list[str]:
        """Return the sources of base, reference and rows; what was measured of a model is made of it and the rows."""
        folder = "/".join(parts[:-1])
        if parts[-1] == "scores.json":
            return [*self._own(f"{folder}/{WEIGHTS}"), *self._split()]
        if parts[0] == "methods":
            return self._row(parts[1])
        given = self.config.base if parts[0] == "base" else self.config.reference
        if given is not None and given.checkpoint is not None:
            return self._of_role(BASE if parts[0] == "base" else REFERENCE) or self._of_role(parts[0])
        if parts[0] == "base" and self.config.base.pretrained:
            return self._of_role(MODEL)
        return self._split()

    def _row(self, row: str) -> list[str]:
        method = next((one for one in self.config.methods if one.row == row), None)
        if method is None:
            return []
        info = describe(method.name)
        start = [] if info.scratch else self._own(f"base/{WEIGHTS}")
        own = self._own(f"private/methods/{row}/*.safetensors")
        chosen_by = self.config.selection.objective
        reference = self._own(f"reference/{WEIGHTS}") if chosen_by in ("match-reference", "lasting") else []
        return [*start, *(self._pool() if "pool" in info.needs else []), *own, *reference, *self._split()]

    def _private(self, parts: list[str]) -> list[str]:
        if parts[1] == "data":
            return self._rows()
        if parts[1] == "pool":
            return [*self._own(f"base/{WEIGHTS}"), *self._split()]
        if parts[1] in ("controls", "shadows"):
            return self._split()
        if parts[1] in ("methods", "shared"):
            return [*self._own(f"base/{WEIGHTS}"), *self._pool(), *self._own("private/moments/*"),
                    *self._own("private/common/*.safetensors"), *self._split()]  # fmt: skip
        return [*self._own(f"base/{WEIGHTS}"), *self._split()]

    def _originals(self) -> list[str]:
        return [*self._own(f"base/{WEIGHTS}"), *self._own(f"reference/{WEIGHTS}")]

    def _models_beside(self) -> list[str]:
        """Return the models that tests compare with: further Retrains, and shadow models."""
        return [*self._own(f"private/controls/*/{WEIGHTS}"), *self._own(f"private/shadows/*/{WEIGHTS}")]

    def _pool(self) -> list[str]:
        return self._own("private/pool/*/*.safetensors")

    def _split(self) -> list[str]:
        return self._matching(SPLIT) or self._rows()

    def _rows(self) -> list[str]:
        """Return the rows themselves: what files or data sets they came from."""
        return [name for name, role in self.inputs.items() if role in (ROWS, DATA) or role.startswith("data.")]

    def _of_role(self, role: str) -> list[str]:
        return [name for name, known in self.inputs.items() if known == role]

    def _own(self, pattern: str) -> list[str]:
        return self._matching(f"{self.prefix}{pattern}")

    def _matching(self, *patterns: str) -> list[str]:
        return [name for name in self.names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def ancestors(sources: Mapping[str, Sequence[Any]], name: str) -> list[str]:
    """Return all that a file was made of, directly or not, in the order in which it is found.

    >>> ancestors({"a": ["b"], "b": ["c"]}, "a")
    ['b', 'c']
    """
    found: dict[str, None] = {}
    waiting = list(sources.get(name, ()))
    while waiting:
        one = waiting.pop(0)
        if one not in found and one != name:
            found[one] = None
            waiting += sources.get(one, ())
    return list(found)
