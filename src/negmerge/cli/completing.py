"""What the shell completes beside commands, options and file names: names of what is registered, and keys of `--set`.

Nothing here imports torch: a key is pressed and somebody waits.
"""

from collections.abc import Callable, Iterable

import typer

TOP = "name request seeds device workers threads methods task"
PARTS = {  # of a config: a test holds that its schema has them
    "compute": "channels_last precision compile",
    "base": "train checkpoint pretrained previous",
    "reference": "train checkpoint",
    "pool": "train grid adapter leave_one_out",
    "buffers": "recalibrate rows",
    "projection": "rows samples strength",
    "selection": "objective floor search step max_alpha margin candidates relearning floor_on retain_rows "
    "forget_rows match",
    "evaluation": "membership scores most",
    "evidence": "tests method controls most",
    "model": "family",
    "data": "source forget retain validation train_rows split seed",
}


def config_keys(incomplete: str) -> list[str]:
    """Return the keys of a config that begin so, as `--set` writes them."""
    inside = (f"{part}.{key}" for part, keys in PARTS.items() for key in keys.split())
    return _starting((f"{key}=" for key in (*TOP.split(), *PARTS, *inside)), incomplete)


def merge_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the settings, as `--set` writes them, of the merge method that stands on the command line."""
    from negmerge import registry
    from negmerge.merging.method import load_method

    name = ctx.params.get("method") or "consensus"
    known = name in registry.names("methods", "negmerge.merging.methods")
    return _starting((f"{key}=" for key in load_method(name).defaults) if known else (), incomplete)


def registered(*kinds: str, package: str | None = None) -> Callable[[str], list[str]]:
    """Return what completes the names of some kinds, of one package alone if it is given."""

    def complete(incomplete: str) -> list[str]:
        from negmerge import registry

        return _starting((name for kind in kinds for name in registry.names(kind, package)), incomplete)

    return complete


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})
