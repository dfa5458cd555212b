"""`negmerge unlearn`: a run without a config."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from negmerge.cli.completing import config_keys, registered
from negmerge.cli.printing import print_json
from negmerge.cli.run import Fresh, Purge, PurgeBase

FAMILIES = registered("families", "text-families")
METHODS = registered("methods")


def unlearn(
    model: Annotated[str, typer.Argument(help="A folder of transformers, a hub id, weights, or an earlier run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The run directory.")],
    forget: Annotated[
        Path, typer.Option(help="The rows to forget: a table (csv, json, parquet), a class folder, a list of files.")
    ],
    retain: Annotated[
        Path | None, typer.Option(help="The rows to keep: a table, or a folder of images; rows to forget may be in it.")
    ] = None,
    unseen: Annotated[Path | None, typer.Option(help="A table of rows that the model has never seen.")] = None,
    family: Annotated[
        str | None, typer.Option(help="What weights in a file are of: a name, or FILE.py.", autocompletion=FAMILIES)
    ] = None,
    method: Annotated[
        str, typer.Option(help="auto: by the request; see `negmerge list methods`.", autocompletion=METHODS)
    ] = "auto",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable.", autocompletion=config_keys
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, beside retraining, and stop.")] = False,
    fresh: Fresh = False,
    purge: Purge = False,
    purge_base: PurgeBase = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a model forget rows: finds task, family and columns, says what it assumed, writes the config, and runs it.

    The same command again resumes. A second request goes on from the first: give its run directory as MODEL.
    """
    from negmerge.cli.logs import is_quiet
    from negmerge.cli.run import print_plan, result_text, run_shown
    from negmerge.experiment.config import apply_change
    from negmerge.experiment.direct import Request
    from negmerge.experiment.direct_choices import checked_request, describe_choices
    from negmerge.experiment.exporting.export import SameAsBaseError, export
    from negmerge.experiment.exporting.row import shipped_row

    given: dict[str, Any] = {}
    for change in changes or []:
        apply_change(given, change)
    data = given.get("data")
    columns = data.get("columns") if isinstance(data, dict) else None
    columns = columns if isinstance(columns, dict) else {}  # anything else is refused with the config
    request = Request(Path(model), forget, retain, unseen, family, method, columns)
    config = checked_request(request, changes or [])
    for line in () if is_quiet() else (*request.assumed, *describe_choices(config)):
        print(f"assumed: {line}", file=sys.stderr)
    if dry_run:
        print_plan(config, as_json)
        return
    results, place = run_shown(config, output, fresh=fresh)
    row, told = shipped_row(config.resolved(), results), "Unlearned model"
    where = output / "methods" / row / "model.safetensors"
    try:
        where = export(output, output / "model", method=row, overwrite=True).path
    except SameAsBaseError:
        told = "The model as it was"
        print(f"note: α = 0 was chosen for {row}: the model is as it was, and nothing is exported", file=sys.stderr)
    if purge or purge_base:  # what is exported is made of what goes
        run_shown(config, output, purge=purge, purge_base=purge_base)
    if as_json:
        print_json({**results, "model_path": str(where)})
    else:
        print(f"{result_text(results, place)}\nConfig: {place / 'config.yaml'}\n{told}: {where}")
