"""Progress of a run on stderr: a listener to its events."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from negmerge.cli.logs import is_quiet

BECAUSE = {
    "made": "its settings, the pool or the plug-in changed",
    "judged": "what it is judged by changed",
    "chosen": "how α is chosen changed; what was measured is kept",
}


class RunProgress:
    """A context whose `listen` takes the events of a run and shows them."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=is_quiet(),
        )
        self._task: Any = None

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def listen(self, event: dict[str, Any]) -> None:
        """Show one event."""
        name = event["event"]
        if is_quiet():
            return
        told = _line(event)
        if told:
            self._progress.console.print(f"  {told}", highlight=False)
        elif name == "estimate":
            trained = event["training_rows"] + event["pool_rows"]
            self._progress.console.print(
                f"  about {event['minutes']:.1f} minutes from the start: {trained:,} {event['noun']}s trained on, "
                f"{event['evaluated_rows']:,} evaluated, {event['disk'] / 1e6:,.0f} MB on disk",
                highlight=False,
            )
        elif name == "stage-started":
            self._begin(event["stage"], None)
        elif name == "stage-done":
            self._progress.console.print(f"  {event['stage']:<24} {event['seconds']:8.1f} s", highlight=False)
            self._end()
        elif name == "training" and event["jobs"]:
            self._begin(f"training {event['jobs']} model(s)", event["jobs"], event["done"])
        elif name == "trained" and self._task is not None:
            self._progress.advance(self._task)
        elif name == "evaluated" and self._task is not None:
            text = f"{event['method']} α {event['alpha']:g}: forget {event['forget']:.1f} retain {event['retain']:.1f}"
            self._progress.update(self._task, description=text)
        elif name == "testing" and self._task is not None:
            self._progress.update(self._task, description=f"evidence: {event['test']}")
        elif name == "epoch" and self._task is not None:
            text = f"{event['method']} epoch {event['number']} of {event['epochs']}: loss {event['loss']:.3f}"
            self._progress.update(self._task, description=text)

    def _begin(self, text: str, total: int | None, done: int = 0) -> None:
        self._end()
        self._task = self._progress.add_task(text, total=total, completed=done)

    def _end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def _line(event: dict[str, Any]) -> str:
    """Return what an event says once and for all, "" for one that only moves the bars."""
    match event["event"]:
        case "renewed":
            return f"{event['stage']} is made anew: {BECAUSE[event['because']]}"
        case "diverged":
            return f"{event['name']} is left out: {event['text']}"
        case "note":
            return str(event["text"])
        case "purged":
            return f"removed: {', '.join(event['removed']) or 'nothing'}; the report says what is left"
    return ""
