"""`negmerge verify`: recompute the hashes of a record."""

from pathlib import Path
from typing import Annotated

import typer

from negmerge.cli.merge import AsJson
from negmerge.cli.printing import print_json


def verify(
    path: Annotated[Path, typer.Argument(help="The directory of a run, or a merged model: a file or a folder.")],
    as_json: AsJson = False,
) -> None:
    """Recompute every hash that the record of a run or of a merged model names, and compare."""
    sha256: dict[str, str] = {}
    if (path / "record.json").is_file():
        from negmerge.experiment.record import verify_run

        count = verify_run(path)
    else:
        from negmerge.merging.output.verifying import verify_model

        verified = verify_model(path)
        count, sha256 = verified.count, verified.sha256
    if as_json:
        print_json({"path": str(path), "hashes": count, "sha256": sha256})
        return
    for name, digest in sha256.items():
        print(f"{digest}  {name}")
    print(f"{path}: {count} hashes are as recorded")
