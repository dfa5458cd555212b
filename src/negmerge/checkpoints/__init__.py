"""Weights on disk: open anything as name → lazily read tensor; write atomically; hash."""

from negmerge.checkpoints.atomic import atomic_write, partial_path, sync_folder, write_bytes_atomic
from negmerge.checkpoints.base import Checkpoint
from negmerge.checkpoints.hashing import hash_file
from negmerge.checkpoints.opening import find, open_adapter, open_checkpoint, read_state_dict
from negmerge.checkpoints.writing import SafetensorsWriter, write_state_dict

__all__ = [
    "Checkpoint",
    "SafetensorsWriter",
    "atomic_write",
    "find",
    "hash_file",
    "open_adapter",
    "open_checkpoint",
    "partial_path",
    "read_state_dict",
    "sync_folder",
    "write_bytes_atomic",
    "write_state_dict",
]
