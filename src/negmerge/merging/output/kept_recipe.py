"""The recipe of a merge, kept: recipe.yaml in the folder of OUT, NAME.recipe.yaml beside an OUT of one file."""

from pathlib import Path

from negmerge.checkpoints import write_bytes_atomic
from negmerge.checkpoints.plain_file import CONFIG_LIMIT, read_small
from negmerge.errors import InputError
from negmerge.merging.output.folder import is_file_output
from negmerge.merging.output.record import recipe_beside

IN_FOLDER = "recipe.yaml"
HEAD = b"# `negmerge merge` makes the model again from this file: give it in the place of BASE and MEMBERs.\n"


class KeptRecipe:
    """The recipe beside an OUT of one file: checked before work starts, written once OUT is there.

    With `overwrite` one that negmerge wrote is replaced, and taken away where the new OUT has no recipe. That of a
    folder is written with the folder. Raises InputError for a file that may not be replaced.
    """

    def __init__(self, output: Path, text: bytes | None, overwrite: bool) -> None:
        self._path, self._text = recipe_beside(output), text
        self._of_file = is_file_output(output)
        looked_at = self._of_file and (text is not None or overwrite) and self._path.exists()
        self._before = read_small(self._path, CONFIG_LIMIT) if looked_at else None
        if text is None or self._before is None or self._before == text:
            return
        if not overwrite:
            raise InputError(f"{self._path} exists; choose another OUT, or replace it with --overwrite")
        if not self._before.startswith(HEAD):
            raise InputError(
                f"{self._path} was not written by negmerge, so --overwrite leaves it alone; choose another OUT"
            )

    def write(self) -> None:
        """Write the recipe, or take away that of the OUT before."""
        if not self._of_file or self._before == self._text:
            return
        if self._text is not None:
            write_bytes_atomic(self._path, self._text)
        elif self._before is not None and self._before.startswith(HEAD):
            self._path.unlink(missing_ok=True)
