"""`negmerge verify`: recompute the hashes of a record."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    path: Annotated[Path, typer.Argument(help="The directory of a run, or a merged model: a file or a folder.")],
) -> None:
    """Recompute every hash that the record of a run or of a merged model names, and compare."""
    from negmerge.errors import InputError

    if (path / "record.json").is_file():
        from negmerge.experiment.record import verify_run

        count = verify_run(path)
    else:
        from negmerge.merging.output.record import verify_model

        if path.is_dir() and not any(path.glob("*.safetensors*")):
            raise InputError(f"{path} has no record.json and no .safetensors; give a run directory or a merged model")
        count = verify_model(path)
    print(f"{path}: {count} hashes are as recorded")
