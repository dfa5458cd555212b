"""What a merge says of itself when it is done."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.merging.streaming import TensorCount


@dataclass(frozen=True)
class MergeReport:
    """What a merge did. `seconds` from opening the inputs to the rename; `bytes_read` and `peak_rss` in bytes."""

    output: Path
    method: str
    members: tuple[str, ...]
    elements: int
    merged_elements: int
    kept: int
    alpha: float
    seconds: float
    bytes_read: int
    tensors: tuple[TensorCount, ...]
    warnings: tuple[str, ...] = ()

    @property
    def consensus(self) -> float:
        """The share of the merged elements that were kept."""
        return self.kept / self.merged_elements

    def as_json(self) -> dict[str, Any]:
        """Return the report as `negmerge merge --json` prints it."""
        return {
            "output": str(self.output),
            "method": self.method,
            "members": list(self.members),
            "elements": self.elements,
            "merged_elements": self.merged_elements,
            "kept": self.kept,
            "consensus": self.consensus,
            "alpha": self.alpha,
            "seconds": self.seconds,
            "bytes_read": self.bytes_read,
            "peak_rss": _peak_rss(),
        }


@dataclass(frozen=True)
class VectorReport:
    """What a merge to a vector kept, in all and of each tensor."""

    tensors: tuple[TensorCount, ...]

    @property
    def kept(self) -> int:
        """Elements kept."""
        return sum(tensor.kept for tensor in self.tensors)

    @property
    def merged_elements(self) -> int:
        """Elements of all merged tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def consensus(self) -> float:
        """The share of the merged elements that were kept."""
        return self.kept / self.merged_elements


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
