"""`negmerge moments`: what the retain projection of checkpoints needs, from the base and the rows of a config."""

from pathlib import Path
from typing import Annotated

import typer

from negmerge.cli.merge import AsJson
from negmerge.cli.printing import print_json


def moments(
    config: Annotated[Path, typer.Argument(help="The YAML config of a run: its base, and its rows.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file, for `negmerge merge --project`.")],
    run: Annotated[Path | None, typer.Option("--run", help="The run directory.  [runs/NAME]")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace moments that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take the second moments of every layer's inputs on the forget and the retain rows of a config.

    Data and base are made in the run directory unless they are there, as `negmerge run` makes them; of several seeds
    those of the first one. The rows are those of `projection:` in the config or on its methods (600 retain rows unless
    it says otherwise). The file tells of these rows: keep it private.
    """
    from negmerge.cli.progress import RunProgress
    from negmerge.experiment.config import load_config
    from negmerge.experiment.moments import take_moments

    checked = load_config(config, changes or [])
    with RunProgress() as progress:
        facts = take_moments(checked, run, output, overwrite=overwrite, on_event=progress.listen)
    if as_json:
        print_json(facts)
        return
    layers, unseen = len(facts["layers"]), facts["unseen"]
    print(f"{output}: {layers} layers, {facts['bytes'] / 1e6:,.1f} MB, {facts['seconds']:.1f} s")
    for part in ("forget", "retain"):
        print(f"  {part:<9}  {facts[part]['rows']:,} rows: {facts[part]['about']}")
    if unseen:
        from negmerge.errors import shortened

        print(f"  unseen     {shortened(unseen)}")
