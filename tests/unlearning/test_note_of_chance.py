"""A pool that agrees by chance only is told of before any α is tried."""

from negmerge.experiment import warnings


def test_a_pool_at_chance_is_a_note_before_methods(seed_run, monkeypatch):
    told = []
    monkeypatch.setattr(seed_run.place, "on_event", told.append)
    seed_run.finish()
    assert not [event for event in told if event["event"] == "note"]
    monkeypatch.setattr(warnings, "NEAR_CHANCE", 1000.0)
    seed_run.finish()
    names = [event.get("stage") or event["event"] for event in told]
    (note,) = (event["text"] for event in told if event["event"] == "note")
    assert note.startswith("warning: unstable-signs: ") and note.endswith("learning rates")
    assert names.index("note") < len(names) - 1 - names[::-1].index("method consensus")
