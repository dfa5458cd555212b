"""`negmerge verify`: recompute the hashes of a record."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    path: Annotated[Path, typer.Argument(help="The directory of a run, or a merged model.")],
) -> None:
    """Recompute every hash that the record of a run or of a merged model names, and compare."""
    if path.is_dir() and not (path / "model.safetensors").exists():
        from negmerge.experiment.record import verify_run

        count = verify_run(path)
    else:
        from negmerge.merging.record import verify_model

        count = verify_model(path)
    print(f"{path}: {count} hashes are as recorded")
