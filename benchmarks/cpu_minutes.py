"""CPU time of a run by stage: what a program computed, whatever else the machine did meanwhile."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORTING = "reporting"  # what follows the last event of a method: its weights are written, and all scores measured
METHOD = "method "


class CpuMinutes:
    """A listener to the events of a run that adds up CPU seconds, of this process and its ended workers, by stage.

    They stand in `file`, and a run that goes on adds to them. A stage inside another has its own time. What a method
    needs once its last α or epoch is done, is reporting and not counted as its own. Of a stage in which the program was
    killed nobody knows what its last event and its worker had spent: its time is NaN from then on.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        found = json.loads(file.read_text()) if file.exists() else {}
        found = found if "open" in found else {"seconds": found, "open": []}  # as older files hold it
        self.seconds: dict[str, float] = found["seconds"] | dict.fromkeys(found["open"], math.nan)
        self._open: list[str] = []
        self._last = _spent()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Count what was spent since the event before this one."""
        now, kind, stage = _spent(), event["event"], event.get("stage", "")
        own = self._open[-1] if self._open else REPORTING
        if kind == "stage-done" and own.startswith(METHOD) and stage == own:
            own = REPORTING
        self.seconds[own] = self.seconds.get(own, 0.0) + now - self._last
        self._last = now
        if kind == "stage-started":
            self._open.append(stage)
        elif kind == "stage-done":
            self._open.pop()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps({"seconds": self.seconds, "open": self._open}))

    def of_row(self, row: str, needs: list[str], *, projected: bool) -> float | None:
        """Return the CPU seconds of a method's row, those of the pool and the moments that it needs among them."""
        shared = [*(["pool"] if "pool" in needs else []), *(["moments"] if projected else [])]
        return self.of_stages(*shared, f"{METHOD}{row}")

    def of_stages(self, *stages: str) -> float | None:
        """Return the CPU seconds of stages; None where one of them was interrupted, or none was seen."""
        if not any(stage in self.seconds for stage in stages):
            return None
        spent = sum(self.seconds.get(stage, 0.0) for stage in stages)
        return None if math.isnan(spent) else spent


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
