"""`negmerge.export`: a row of a finished run as a folder to ship."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.checkpoints import open_checkpoint, write_bytes_atomic
from negmerge.errors import InputError, listing
from negmerge.evidence.restoring import restore, weight_files
from negmerge.experiment.exporting.adapter import write_adapter
from negmerge.experiment.exporting.public import is_weights, public_results, public_statement
from negmerge.experiment.exporting.row import Row, find_row
from negmerge.experiment.exporting.weights import write_weights
from negmerge.experiment.purging import left_on_disk, remove_private
from negmerge.experiment.record import add_byproducts, rewrite_record
from negmerge.experiment.rundir import RunDir
from negmerge.merging.output.base_card import Declared
from negmerge.merging.output.folder import check_folder_output, recover_folder, written_folder
from negmerge.record.digests import digests_of
from negmerge.record.signing import check_key, is_signed_by, sign_folder
from negmerge.record.statement import RECORD, Json, descriptor, flattened, kind_of, read_statement
from negmerge.record.verifying import listing_hash, verify_folder
from negmerge.report import write_report
from negmerge.report.comparison import main_method
from negmerge.report.model_card import card

CARD, PAGE = "README.md", "report.html"
CLEAN = "clean"  # the role of the model under an adapter


class SameAsBaseError(InputError):
    """The row that was to be exported is the base itself."""


@dataclass(frozen=True)
class Clean:
    """A model that never saw what was to be forgotten, and the rank of the adapter on it."""

    path: Path
    rank: int

    def entry(self) -> Json:
        """Return the descriptor of its weights: the SHA-256 of the lines `hash  name` of their files."""
        checkpoint = open_checkpoint(self.path)
        checkpoint.close()
        files = {file.name: digests_of(file).sha256 for file in checkpoint.files}
        return descriptor("the clean model", {"sha256": listing_hash(files)}, role=CLEAN, rank=self.rank)


@dataclass(frozen=True)
class Form:
    """How a row is exported: with ids or without, and on which clean model, if as an adapter."""

    ids: bool
    clean: Clean | None = None


@dataclass(frozen=True)
class Exported:
    """An exported model: its folder, the row, the SHA-256 of each file by name, the verdict where there is one.

    `removed` and `left` are what `purge` took from the run's directory, and what of the request is left, and where:
    (path, what it is).
    """

    path: Path
    method: str
    sha256: Mapping[str, str]
    verdict: str | None
    signed: bool
    removed: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()


def export(
    run: Path | str,
    output: Path | str,
    *,
    method: str | None = None,
    seed: int | None = None,
    ids: bool = True,
    adapter_on: Path | str | None = None,
    rank: int | None = None,
    sign_key: Path | str | None = None,
    overwrite: bool = False,
    purge: bool = False,
    purge_base: bool = False,
) -> Exported:
    """Write the model of a row of a finished run into a folder, with card, public record and page.

    The row is the one that the evidence judged, or else the first, unless `method` names another. The weights are
    whole, in the form in which the base was given (a folder that from_pretrained reads, with tokenizer or processor; a
    safetensors or PyTorch file); never a change that is undone by taking it off. Nothing in the folder gives the base
    back, which is checked where the base is still there, and nothing of the forgotten rows is in it but id and hash;
    without `ids` neither these nor the page, which lists them. Another row than that of the page has no page: a verdict
    is on one model. With `sign_key` (PEM, an elliptic curve) everything is
    signed by the OpenSSF's model-signing.

    Where what was to be forgotten was itself learnt in an adapter, `adapter_on` names the model under it, which never
    saw it, and `rank` that of the adapter to be shipped instead of whole weights; see `write_adapter` for what is
    refused.

    With `purge` the run's directory then loses decoded rows, members and vectors, with `purge_base` the base too.
    The folder appears whole or not at all. The same call again gives the same bytes, or finds them there; where only
    the signature or the purge is missing, it is made.

    Raises InputError for a directory that is no finished run, an unknown row, a row that is the base itself, a key that
    cannot sign, an output that exists or lies where it may not; NegmergeError where it cannot be written.
    """
    run, output = Path(run), Path(output)
    if (adapter_on is None) != (rank is None) or (rank is not None and rank < 1):
        raise InputError("an adapter needs both the clean model (--adapter-on CLEAN) and its rank (--rank, 1 or more)")
    key = None if sign_key is None else Path(sign_key)
    if key is not None:
        check_key(key)
    row = find_row(run, method, seed)
    clean = None if adapter_on is None or rank is None else Clean(Path(adapter_on), rank)
    with RunDir(run).lock():
        return _exported(row, output, Form(ids, clean), key, overwrite, (purge, purge_base))


def _exported(
    row: Row, output: Path, form: Form, key: Path | None, overwrite: bool, purging: tuple[bool, bool]
) -> Exported:
    _check_place(row, output)
    recover_folder(output)
    if not _is_there(row, output, form):
        inputs = [row.run, *([form.clean.path] if form.clean is not None and form.clean.path.exists() else [])]
        check_folder_output(output, inputs, overwrite)
        with written_folder(output, None, overwrite) as folder:
            _write(row, folder, form)
            if key is not None:
                sign_folder(folder, key)
    elif key is not None and not is_signed_by(output, key):
        sign_folder(output, key)
    place = RunDir(row.run)
    if output.resolve().parent == row.run.resolve():
        add_byproducts(row.run)
    removed: tuple[str, ...] = ()
    if any(purging):
        removed = tuple(remove_private(place, base=purging[1], kept=row.name)["removed"])
    left = left_on_disk(place, row.config)
    if any(purging):
        rewrite_record(row.run, on_disk=[{"path": path, "what": what} for path, what in left])
        write_report(row.run)
        add_byproducts(row.run)
    verified = verify_folder(output)
    verdict = row.results["verdict"]["text"] if row.judged() and row.results.get("verdict") else None
    return Exported(output, row.name, verified.sha256, verdict, verified.signed, removed, tuple(left))


def _check_place(row: Row, output: Path) -> None:
    """Raise InputError for an output that the run needs, or inside of one of its folders."""
    run, target = row.run.resolve(), output.resolve()
    if run.is_relative_to(target):
        raise InputError(f"OUT {output} holds the run {row.run}; choose another place")
    if target.is_relative_to(run) and target.parent != run:
        raise InputError(f"OUT {output} lies inside of the run; choose {row.run / 'model'}, or a place outside")
    own = target.name in ("base", "reference", "methods", "evidence", "private") or target.name.startswith("seed-")
    if target.parent == run and own:
        raise InputError(f"OUT {output} is a folder of the run itself; choose another name")


def _is_there(row: Row, output: Path, form: Form) -> bool:
    """Whether the very model lies there already, whole: of the same run, row and seed, shown as much of."""
    if not (output / RECORD).is_file():
        return False
    try:
        found = read_statement(output)
        if kind_of(found) != "export":
            return False
        verify_folder(output)
    except InputError:
        return False
    rank, under = (None, None) if form.clean is None else (form.clean.rank, form.clean.entry()["digest"])
    asked = (row.name, row.seed, form.ids, rank, under, row.entries[row.key]["digest"]["sha256"], _invocation(row))
    return _asked(found) == asked


def _asked(statement: Json) -> tuple[Any, ...]:
    definition = statement["predicate"]["buildDefinition"]
    external, (own, *others) = definition["externalParameters"], definition["resolvedDependencies"]
    under = next((one["digest"] for one in others if (one.get("annotations") or {}).get("role") == CLEAN), None)
    run = statement["predicate"]["runDetails"]["metadata"].get("invocationId")
    asked = (external.get(key) for key in ("method", "seed", "ids", "rank"))
    return (*asked, under, own["digest"].get("sha256"), run)


def _invocation(row: Row) -> str:
    return str(row.statement["predicate"]["runDetails"]["metadata"]["invocationId"])


def _write(row: Row, folder: Path, form: Form) -> None:
    declared: Declared = {}
    missed = None
    if form.clean is None:
        declared = write_weights(row, folder)
    else:
        missed = write_adapter(row.base, row.weights, form.clean.path, form.clean.rank, folder)
    _check_restores_nothing(row, folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    weights = {name: digests_of(folder / name).sha256 for name in names if is_weights(name)}
    entry = row.entries.get(f"{row.prefix}base/model.safetensors")
    about = {
        "declared": declared,
        "library": "peft" if form.clean else "transformers" if (folder / "config.json").is_file() else None,
        "adapter": None if form.clean is None else {"rank": form.clean.rank, "missed": missed},
        "task": row.config.get("task"),
        "files": weights,
        "base": "unknown" if entry is None else entry["digest"]["sha256"],
        "seed": row.seed,
        "judged": row.judged(),
        "ids": form.ids,
        "finished": row.statement["predicate"]["runDetails"]["metadata"].get("finishedOn", "")[:10],
        "versions": {
            name: version
            for name, version in row.statement["predicate"]["runDetails"]["builder"]["version"].items()
            if name in ("negmerge", "torch", "transformers")
        },
    }
    write_bytes_atomic(folder / CARD, card(public_results(row.results, ids=form.ids), row.name, about).encode())
    statement = _statement(row, folder, form)
    if form.ids and _is_of_the_page(row):
        _write_page(row, statement, folder, weights)
        statement = _statement(row, folder, form)
    write_bytes_atomic(folder / RECORD, (json.dumps(statement, indent=1, ensure_ascii=False) + "\n").encode())


def _statement(row: Row, folder: Path, form: Form) -> Json:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    clean = None if form.clean is None else form.clean.entry()
    return public_statement(row, folder, files, ids=form.ids, clean=clean)


def _is_of_the_page(row: Row) -> bool:
    """Whether the page of the run, its verdict and what is signed for, is about this row and seed and no other."""
    return main_method(row.results) == row.name and (row.judged() or not row.results.get("verdict"))


def _write_page(row: Row, statement: Json, folder: Path, weights: Iterable[str]) -> None:
    """Write the page of the run as anybody may see it: of these weights, from the public record, and without rows."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "results.json").write_text(json.dumps(public_results(row.results, ids=True)))
        (place / RECORD).write_text(json.dumps(flattened(statement)))
        listed = statement["predicate"].get("negmerge_forget", {}).get("listed") or []
        (place / "split.json").write_text(json.dumps({"forgotten": listed}))
        shipped = {name: folder / name for name in weights}
        shutil.copyfile(write_report(place, shipped), folder / PAGE)


def _check_restores_nothing(row: Row, folder: Path) -> None:
    """Raise InputError where what was written is the base, or gives it back together with the row's weights."""
    base = row.entries.get(f"{row.prefix}base/model.safetensors")
    if base is not None and base["digest"] == row.entries[row.key]["digest"]:
        raise SameAsBaseError(
            f"the row {row.name} is the base itself: what was to be forgotten is in it; choose another row with "
            "--method"
        )
    if not row.base.is_file():
        return
    found = [(file, restore(row.base, row.weights, [file])) for file in weight_files(folder)]
    restoring = [file.relative_to(folder).as_posix() for file, one in found if one is not None and one.restores]
    if restoring:
        raise InputError(
            listing(f"the row {row.name} is not exported: these would give the base back:", restoring)
            + "\nchoose another row with --method"
        )
