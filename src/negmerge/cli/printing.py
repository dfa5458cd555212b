"""What commands print with --json."""

import json
import math
from typing import Any


def print_json(facts: Any) -> None:
    """Print facts as one line of JSON; NaN and Inf, for which JSON has no words, as null."""
    print(json.dumps(_finite(facts), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
