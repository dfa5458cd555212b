"""Reading `results.json` and `record.json`: what is not as expected becomes one clear line."""

import json
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.record.statement import flattened

Json = dict[str, Any]

FORMAT = 1
REQUIRED = ("name", "task", "base", "methods")

_ROW: Json = {
    "label": str,
    "method": str,
    "kind": str,
    "needs": [str],
    "settings": {},
    "alpha": float,
    "member": str,
    "forget": float,
    "retain": float,
    "validation": float,
    "validation_forget": float,
    "test": float,
    "test_forget": float,
    "membership": float,
    "gap": float,
    "gap_parts": {"retain": float, "forget": float, "test": float, "membership": float},
    "per_class": [float],
    "consensus": float,
    "kept": float,
    "merged_elements": float,
    "layers": [{"name": str, "elements": float, "kept": float}],
    "projection": {
        "strength": float,
        "rows": {"forget": {"rows": float, "about": str}, "retain": {"rows": float, "about": str}},
        "layers": [
            {
                "name": str,
                "forget_before": float,
                "retain_before": float,
                "forget_after": float,
                "retain_after": float,
                "before": float,
                "after": float,
            }
        ],
        "others": str,
        "without": [str],
        "strengths": [{"strength": float, "alpha": float, "forget": float, "retain": float}],
        "needs": str,
    },
    "search": {
        "ranges": {},
        "candidates": [{"settings": {}, "scores": {}, "failed": str, "seconds": float}],
        "winner": {},
        "seconds": float,
    },
    "curve": [{"alpha": float, "forget": float, "validation_forget": float, "retain": float, "validation": float}],
    "lowest_alpha": float,
    "lasting": [
        {
            "strength": float,
            "alpha": float,
            "forget": float,
            "retain": float,
            "positions": {},
            "distance": float,
            "reached": float,
        }
    ],
    "floor": float,
    "note": str,
    "oracle": {"alpha": float, "gap": float, "gap_chosen": float},
    "seconds": float,
    "seconds_parts": {},
    "std": {},
    "seeds": [{}],
}

_READING: Json = {
    "name": str,
    "base": float,
    "reference": float,
    "model": float,
    "position": float,
    "low": float,
    "high": float,
    "n": float,
    "unit": str,
    "informative": float,
    "passes": float,
    "beyond": float,
    "why": str,
    "bar": float,
    "controls": [float],
}

_ROLES = ("base", "model", "reference")

_RESULTS: Json = {
    "name": str,
    "negmerge": str,
    "task": {
        "kind": str,
        "text": str,
        "source": str,
        "noun": str,
        "measure": str,
        "by_group": [str],
        "groups_without_retain": [str],  # beside by_group: groups of forget rows alone
        "forget_classes": [str],
        "classes": [str],
        "rows": {},
        "evaluated": {},
        "test_is": str,  # "held out": from the rows to keep, so the original may know them; else unseen
    },
    "model": {"family": str, "parameters": float, "merged_elements": float, "buffers": str},
    "scores": [
        {
            "name": str,
            "title": str,
            "about": str,
            "unit": str,
            "low": float,
            "high": float,
            "aim": str,
            "chance": float,
            "attack": str,
        }
    ],
    "selection": {
        "objective": str,
        "floor": float,
        "search": str,
        "floor_on": str,
        "retain_rows": float,
        "forget_rows": float,
        "held_out_rows": float,
        "match": [str],
        "forget_is": str,  # of results before 0.2: whose rows `forget_rows` counts
    },
    "base": _ROW,
    "reference": _ROW,
    "methods": {},
    "pool": {
        "members": [
            {
                "name": str,
                "settings": {},
                "loss": float,
                "forget_loss": float,
                "seconds": float,
                "alpha": float,
                "forget": float,
                "retain": float,
                "likeness": float,
                "size": float,
            }
        ],
        "advice": str,
        "consensus": float,
        "chance": float,
        "zero_share": float,
        "cosine": [[float]],
        "health": {},
        "adapter": {},
        "seconds": float,
    },
    "statistics_moved": {},
    "warnings": [{"name": str, "method": str, "text": str, "advice": str}],
    "seeds": [float],
    "said": {
        "method": str,
        "rows": [{"part": str, "prompt": str, "right": str, "before": str, "after": str, "reference": str}],
    },
    "evidence": {
        "method": str,
        "seed": float,
        "most": float,
        "own": str,
        "controls": float,
        "tests": [
            {
                "name": str,
                "weight": str,
                "text": str,
                "question": str,
                "counted": _READING,
                "readings": [_READING],
                "facts": {},
                "seconds": float,
            }
        ],
    },
    "verdict": {"word": str, "text": str, "because": [str]},
    "request": {},
    "shown": {
        "method": str,
        "answers": [{"part": str, "rows": float, "labels": [str], **{role: [float] for role in _ROLES}}],
        "examples": [{"part": str, "group": str, **dict.fromkeys(_ROLES, str), "image": str, "text": str}],
        "matrix": {"name": str, "shape": [float], "kept": float, "signs": [str]},
        "lottery": [{"member": str, "alpha": float, "forget": float, "retain": float}],
    },
}

_FILE = {"path": str, "bytes": float, "hash": str}
_RECORD: Json = {
    "started": str,
    "finished": str,
    "command": str,
    "config": {},
    "versions": {},
    "machine": {"cpu": str, "cores": float, "memory": float, "device": str, "threads": float},
    "inputs": [_FILE],
    "outputs": [_FILE],
    "stages": [{"name": str, "seconds": float}],
    "peak_rss": float,
    "on_disk": [{"path": str, "what": str}],
    "purged": [str],
}
_ROW_LISTED = {"row": float, "id": str, "group": str, "hash": str}

_WORDS = {str: "a text", float: "a number", dict: "an object", list: "a list"}


def read_run(run_dir: Path) -> tuple[Json, Json]:
    """Return the contents of `results.json` and `record.json` of a run directory; a key that is missing is None.

    Raises InputError when a file is missing, is not JSON, or does not have the shape of format 1.
    """
    results = _read(run_dir / "results.json")
    record = flattened(_read(run_dir / "record.json"))
    check_results(results, str(run_dir / "results.json"))
    _check(record, _RECORD, str(run_dir / "record.json"), "")
    return _complete(results, _RESULTS), _complete(record, _RECORD)


def read_forgotten(run_dir: Path) -> list[Json]:
    """Return what `split.json` of a run says of every forgotten row: row, id, group, hash; nothing without the file.

    Raises InputError when the list does not have this shape.
    """
    file = run_dir / "split.json"
    found = (_read(file).get("forgotten") or []) if file.is_file() else []
    _check(found, [_ROW_LISTED], str(file), "forgotten")
    rows: list[Json] = _complete(found, [_ROW_LISTED])
    return rows


def check_results(results: Any, where: str = "results") -> None:
    """Raise InputError, naming the key, unless `results` has the shape of format 1."""
    if not isinstance(results, dict):
        raise InputError(f"{where}: expected an object, got {_kind(results)}")
    if results.get("format") != FORMAT:
        raise InputError(
            f"{where}: this negmerge reads format {FORMAT}, got {results.get('format', 'none')!r}; "
            "repeat `negmerge run` with this version"
        )
    for key in REQUIRED:
        if results.get(key) is None:
            raise InputError(f"{where}: {key!r} is missing; repeat `negmerge run` to write it again")
    _check(results, _RESULTS, where, "")
    for name, row in results["methods"].items():
        _check(row, _ROW, where, f"methods.{name}")
    for key, row in rows_of(results):
        for i, of_seed in enumerate(row.get("seeds") or []):
            _check(of_seed, _ROW, where, f"{key}.seeds[{i}]")


def results_schema() -> dict[str, Any]:
    """Return the JSON schema of `results.json`: what is not known is null, and further keys may stand beside."""
    row = _schema(_ROW)
    made = _schema(_RESULTS)
    made["title"] = "results.json of negmerge"
    made["type"] = "object"
    made["required"] = ["format", *REQUIRED]
    made["properties"] |= {"format": {"const": FORMAT}, "methods": {"type": "object", "additionalProperties": row}}
    return made


def _schema(shape: Any) -> dict[str, Any]:
    if isinstance(shape, dict):
        return {"type": ["object", "null"], "properties": {name: _schema(inner) for name, inner in shape.items()}}
    if isinstance(shape, list):
        return {"type": ["array", "null"], "items": _schema(shape[0])}
    return {"type": ["string" if shape is str else "number", "null"]}


def rows_of(results: Json) -> list[tuple[str, Json]]:
    """Return (name, row) for base, every method in the order of the file, and the reference if any."""
    rows = [("base", results["base"]), *results["methods"].items()]
    if results.get("reference"):
        rows.append(("reference", results["reference"]))
    return rows


def _read(path: Path) -> Any:
    try:
        # NaN and Infinity are not JSON, but Python writes them: they count as missing values.
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `negmerge run CONFIG -o {path.parent}` writes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); `negmerge run` writes it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _check(value: Any, shape: Any, where: str, key: str) -> None:
    """Compare `value` with `shape`; null is a missing value and fits anywhere."""
    if value is None:
        return
    expected = type(shape) if isinstance(shape, dict | list) else shape
    fits = isinstance(value, int | float) if expected is float else isinstance(value, expected)
    if not fits:
        raise InputError(f"{where}: {key or 'the file'} should be {_WORDS[expected]}, got {_kind(value)}")
    if isinstance(shape, dict):
        for name, inner in shape.items():
            _check(value.get(name), inner, where, f"{key}.{name}".lstrip("."))
    elif isinstance(shape, list):
        for i, item in enumerate(value):
            _check(item, shape[0], where, f"{key}[{i}]")


def _complete(value: Any, shape: Any) -> Any:
    """Return `value` with None for every key of `shape` that it lacks."""
    if isinstance(shape, dict) and isinstance(value, dict):
        return {**value, **{name: _complete(value.get(name), inner) for name, inner in shape.items()}}
    if isinstance(shape, list) and isinstance(value, list):
        return [_complete(item, shape[0]) for item in value]
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    return _WORDS.get(type(value), type(value).__name__)
