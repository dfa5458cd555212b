"""`negmerge rows`: what a request finds, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

from negmerge.cli.completing import config_keys
from negmerge.cli.printing import print_json


def rows(
    config: Annotated[Path, typer.Argument(help="A YAML config, as for negmerge run.")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable.", autocompletion=config_keys
        ),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=0, help="Print at most so many forgotten rows; 0 for all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every forgotten row.")] = False,
) -> None:
    """Show which rows a config's request finds: how many in each part, and the number, id and group of each."""
    from negmerge.experiment.config import load_config
    from negmerge.experiment.rows import find_rows

    found = find_rows(load_config(config, changes or []))
    if as_json:
        print_json(found.as_json())
        return
    print(found.text)
    for name, count in found.counts.items():
        print(f"  {name:<18} {count:>9,}")
    for note in found.notes:
        print(f"note: {note}")
    shown = found.forgotten[: most or None]
    width = max((len(row["id"]) for row in shown), default=0)
    print(f"\n  {'row':>7}  {'id':<{width}}  group")
    for row in shown:
        print(f"  {row['row']:>7}  {row['id']:<{width}}  {row['group']}")
    if len(shown) < len(found.forgotten):
        print(f"  … and {len(found.forgotten) - len(shown):,} more; --most 0 prints all")
