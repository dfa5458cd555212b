"""What is refused of the evidence that a config asks for: before anything runs, and once the task is known."""

from collections.abc import Sequence

from negmerge.errors import InputError, nearest
from negmerge.evidence.protocol import check_capable, checked_settings
from negmerge.experiment.choices import EvidenceConfig, SelectionConfig
from negmerge.selection import LASTING
from negmerge.tasks.task import Task


def check_evidence(config: EvidenceConfig, rows: Sequence[str], where: str) -> None:
    """Raise InputError for a test that is unknown, a setting that it refuses, and a row that is none of `rows`."""
    for test in config.tests:
        checked_settings(test.name, test.settings)
    if config.method is not None and config.method not in rows:
        raise InputError(f"{where}: evidence.method: there is no row {config.method!r}{nearest(config.method, rows)}")


def check_lasting(rule: SelectionConfig, where: str) -> None:
    """Raise InputError for settings of relearning that the test does not take, or that no objective reads."""
    if rule.relearning and rule.objective != LASTING:
        raise InputError(f"{where}: selection.relearning is of the objective lasting, and this is {rule.objective}")
    try:
        checked_settings("relearning", rule.relearning)
    except InputError as error:
        raise InputError(str(error).replace("evidence: ", f"{where}: selection: ")) from None


def check_evidence_task(config: EvidenceConfig, task: Task) -> None:
    """Raise InputError where a test needs what the task does not have."""
    for test in config.tests:
        check_capable(test.name, task)
