"""`negmerge verify`: recompute the hashes of a record, and check a signature."""

from pathlib import Path
from typing import Annotated

import typer

from negmerge.cli.merge import AsJson
from negmerge.cli.printing import print_json


def verify(
    path: Annotated[
        Path, typer.Argument(help="The directory of a run, an exported model, or a merged one: a file or a folder.")
    ],
    public_key: Annotated[
        Path | None, typer.Option("--public-key", metavar="KEY", help="Check the signature too, by this key (PEM).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every hash that the record of a run or of a model names; tell what was changed, is missing or added."""
    from negmerge.errors import InputError
    from negmerge.experiment.rundir import RunDir
    from negmerge.record.statement import kind_of, read_statement
    from negmerge.record.verifying import has_record, verify_folder

    signed = is_run = False
    if has_record(path):
        is_run = kind_of(read_statement(path)) == "run"
        verified = verify_folder(path)
        count, sha256, signed = verified.count, verified.sha256, verified.signed
    elif RunDir(path).is_run:
        raise InputError(f"{path} has no record.json: its run is not finished; go on with it first")
    else:
        from negmerge.merging.output.verifying import verify_model

        merged = verify_model(path)
        count, sha256 = merged.count, merged.sha256
    if public_key is not None:
        from negmerge.record.signing import verify_signature

        verify_signature(path, public_key)
    if as_json:
        print_json({"path": str(path), "hashes": count, "sha256": sha256, "signature": public_key is not None})
        return
    for name, digest in sha256.items() if not is_run else ():
        print(f"{digest}  {name}")
    print(f"{path}: {count} hashes are as recorded{_about_signature(signed, public_key)}")


def _about_signature(signed: bool, key: Path | None) -> str:
    if key is not None:
        return f", and the signature is by the key of {key}"
    return "; the signature was not checked: give --public-key KEY" if signed else ""
