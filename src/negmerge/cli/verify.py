"""`negmerge verify`: recompute the hashes of a record."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    path: Annotated[Path, typer.Argument(help="The directory of a run, or a merged model: a file or a folder.")],
) -> None:
    """Recompute every hash that the record of a run or of a merged model names, and compare."""
    if (path / "record.json").is_file():
        from negmerge.experiment.record import verify_run

        count = verify_run(path)
    else:
        from negmerge.merging.output.verifying import verify_model

        verified = verify_model(path)
        count = verified.count
        for name, digest in verified.sha256.items():
            print(f"{digest}  {name}")
    print(f"{path}: {count} hashes are as recorded")
