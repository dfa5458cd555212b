"""An adapter to ship, where what was to be forgotten was itself learnt in an adapter on a model that never saw it."""

import json
import tempfile
from pathlib import Path

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.checkpoints.adapter import CONFIG, WEIGHTS
from negmerge.errors import InputError
from negmerge.evidence.restoring import changed_share, restore
from negmerge.merging.as_adapter import merge_as_adapter

MOST = 1e-3  # of a change, in the Frobenius norm, that an adapter may leave out: what is shipped is what was tested
PLACE = "base_model_name_or_path"


def write_adapter(base: Path, weights: Path, clean: Path, rank: int, folder: Path) -> float:
    """Write `weights` − `clean` as a LoRA adapter of a rank into a folder, as PEFT reads it, and return what it misses.

    Taken off, it leaves the clean model, which never saw what was forgotten; so the base must be the clean model with
    an adapter of at most this rank. The value is the share of the change that the rank leaves out, at most 0.001.

    Raises InputError where the base is gone, where it is the clean model or differs from it by more than such an
    adapter, where the rank leaves out more, and where the adapter, scaled, would give the base back.
    """
    if not base.is_file():
        raise InputError(f"{base} was removed: nothing tells any more whether an adapter may be shipped; leave it out")
    _check_names(clean, weights)
    if not changed_share(base, clean):
        raise InputError(f"{clean} is the base itself: an adapter on it negates, and is undone by taking it off")
    with tempfile.TemporaryDirectory() as scratch:
        learnt = _factored(clean, base, rank, Path(scratch) / "learnt")
        if learnt > MOST:
            raise InputError(
                f"the base is not {clean} with an adapter of rank {rank}: {100 * learnt:.1f} % of their difference "
                "does not fit, so what it learnt was not learnt in an adapter; export whole weights"
            )
        missed = _factored(clean, weights, rank, Path(scratch) / "adapter")
        if missed > MOST:
            raise InputError(
                f"an adapter of rank {rank} leaves out {100 * missed:.1f} % of the change, and would not be the model "
                "that was tested; raise --rank, or export whole weights"
            )
        made = Path(scratch) / "adapter"
        # The record in its header is of a merge; that of the export stands beside it.
        write_state_dict(folder / WEIGHTS[0], read_state_dict(made / WEIGHTS[0]), {"format": "pt"})
        config = {key: value for key, value in json.loads((made / CONFIG).read_text()).items() if key != PLACE}
        write_bytes_atomic(folder / CONFIG, (json.dumps({**config, PLACE: None}, indent=2) + "\n").encode())
    scaled = restore(base, weights, [folder])
    if scaled is not None and scaled.restores:
        raise InputError(
            f"the adapter would give the base back when it is scaled by {1 + scaled.factor:.3g}: it is only shorter "
            "than the one that knew; export whole weights, or another row"
        )
    return missed


def _factored(clean: Path, other: Path, rank: int, target: Path) -> float:
    """Write `other` − `clean` as an adapter, and return the share of it that is left out."""
    report = merge_as_adapter(
        clean, [other], target, rank, method="task-arithmetic", alpha=1.0, add=True, hash_inputs=False
    )
    return report.error


def _check_names(clean: Path, weights: Path) -> None:
    shapes = []
    for path in (clean, weights):
        checkpoint = open_checkpoint(path)
        shapes.append({name: checkpoint.shape(name) for name in checkpoint.names})
        checkpoint.close()
    theirs, ours = shapes
    strange = [name for name in ours if theirs.get(name) != ours[name]]
    if strange:
        raise InputError(f"{clean} is another model: it has no {strange[0]} of shape {list(ours[strange[0]])}")
