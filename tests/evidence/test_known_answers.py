"""Models whose answer is known by construction: the base, a further Retrain, one that only lost its head's row."""

import pytest
import torch

from negmerge.errors import InputError
from negmerge.evidence.blocks import chain_of, patched, recorded
from negmerge.evidence.own_rows import read_own_rows
from negmerge.evidence.protocol import check_capable, checked_settings, read_test
from negmerge.evidence.verdict import Answer, decide

SETTINGS = {
    "relearning": {"factors": [3.0], "steps": 60, "scored": 40},
    "fine-tuning": {"factors": [3.0], "steps": 20},
}
NAMES = (
    "relearning", "offset", "quantisation", "pruning", "fine-tuning", "probe", "depth", "three-sample", "disagreement",
    "who-paid",
)  # fmt: skip


@pytest.fixture(scope="module")
def judged(subject_of):
    """What each test finds on each model, with a further Retrain as the control, and the verdict."""
    made = {}

    def judge(model, names=NAMES):
        if model not in made:
            subject, control = subject_of(model), subject_of("control")
            found = {}
            for name in names:
                settings = checked_settings(name, SETTINGS.get(name, {}))
                held = read_test(name)
                found[name] = held.run(subject, settings).beside([held.run(control, settings)])
            _, own = read_own_rows(subject, [control])
            answers = [Answer(name, read_test(name).WEIGHT, one) for name, one in found.items()]
            made[model] = found, own, decide(own, answers)
        return made[model]

    return judge


def test_the_base_is_found_by_every_test_that_can_tell(judged):
    found, own, verdict = judged("base")
    assert own == "not" and verdict.word == "not"
    told = {name: one.counted for name, one in found.items() if one.counted.informative}
    assert set(told) == set(NAMES) - {"probe"}  # Retrain's features tell a 3 by its shape
    assert all(reading.position == pytest.approx(1.0) and not reading.passes for reading in told.values())
    assert found["three-sample"].facts["nearer"] == "base"


def test_no_test_flags_a_further_retrain(judged):
    found, own, verdict = judged("again")
    assert own == "held" and verdict.word == "forgotten"
    assert all(one.counted.passes or not one.counted.informative for one in found.values())
    assert not any(reading.beyond for one in found.values() for reading in one.readings)
    assert found["three-sample"].facts["nearer"] == "reference"


def test_a_lowered_head_passes_accuracy_but_not_depth(judged):
    found, own, verdict = judged("head")
    assert own == "held" and verdict.word == "suppressed" and "depth" in verdict.because
    assert found["depth"].counted.position == pytest.approx(1.0)
    assert found["offset"].readings[0].model == 100.0
    hidden = found["depth"].facts["cka"]
    assert hidden["model and base"] == pytest.approx([1.0] * 3)
    assert (
        hidden["model and reference"] == pytest.approx(hidden["base and reference"])
        and min(hidden["model and reference"]) < 0.9
    )


def test_noise_is_paid_by_everybody(judged):
    found = judged("noised", ("depth", "who-paid", "disagreement"))[0]
    facts = found["who-paid"].facts
    assert found["depth"].counted.passes  # nothing is left, of the class and of all else
    assert facts["examples"]["fallen"] > 300 and len(facts["examples"]["worst"]) == 20
    groups = facts["groups"]["retain"]
    assert [one["lost"] for one in groups] == sorted((one["lost"] for one in groups), reverse=True)
    assert groups[0]["lost"] > 80 and "3" not in {one["group"] for one in groups}
    unharmed = judged("head")[0]["who-paid"].facts
    assert max(one["lost"] for one in unharmed["groups"]["test"]) <= 3
    assert found["disagreement"].facts["retain"]["model"]["disagreement"] > 30
    assert judged("head")[0]["disagreement"].facts["retain"]["model"]["disagreement"] < 2


def test_neighbours_are_what_retrain_takes_the_rows_for(judged):
    near = judged("base")[0]["who-paid"].facts["neighbours"]
    assert near[0]["group"] != "3" and near[0]["share"] >= near[1]["share"] > 0 and near[0]["lost"] == 0.0


def test_relearning_draws_are_seeded_and_k_is_retrains(judged, subject_of):
    facts = judged("base")[0]["relearning"].facts["lr 0.03"]
    assert facts["steps"] == len(facts["curves"]["reference"]) - 1 <= 60
    assert facts["curves"]["reference"][-1] >= 50.0 > facts["curves"]["reference"][-2]
    first = read_test("relearning").run(
        subject_of("base", memo={}), checked_settings("relearning", SETTINGS["relearning"])
    )
    assert first.facts["lr 0.03"]["curves"] == facts["curves"]


def test_blocks_are_where_the_next_layer_reads(subject_of):
    subject = subject_of("base")
    base = subject.kept("base")
    rows = subject.rows("forget")[:8]
    assert chain_of(subject.task, base, rows, "cpu") == ["2", "5", "10"]
    batch = subject.task.batch(rows, "cpu")
    states = recorded(subject.task, base, batch, ["2", "10"])
    assert torch.equal(patched(subject.task, base, batch, states), torch.zeros(8, 2, dtype=torch.float64))
    before = base(torch.zeros(1, 1, 8, 8))
    other = recorded(subject.task, subject.kept("reference"), batch, ["10"])
    assert (patched(subject.task, base, batch, other) > 0).any()
    assert torch.equal(base(torch.zeros(1, 1, 8, 8)), before)  # no hook is left


def test_what_is_refused(subject_of):
    with pytest.raises(InputError, match="relearning: it does not take 'drawz' \\(did you mean 'draws'\\?\\)"):
        checked_settings("relearning", {"drawz": 5})
    with pytest.raises(InputError, match="relearning: draws: Input should be greater than or equal to 5"):
        checked_settings("relearning", {"draws": 2})
    with pytest.raises(InputError, match=r"unknown test 'ofset' \(did you mean 'offset'\?\)"):
        read_test("ofset")

    class Other:
        NAME, COLUMNS = "other", ()

    with pytest.raises(InputError, match="evidence: depth needs the loss of each row, which the task other does not"):
        check_capable("depth", Other())
    with pytest.raises(InputError, match="evidence: relearning needs the column 'correct', which the task other"):
        check_capable("relearning", Other())


OWN_FILE = '''
"""How sure the model is of forgotten rows."""
from negmerge.evidence.protocol import Cost, Found
from negmerge.evidence.scale import read_scale
from negmerge.evidence.subject import ROLES

SUMMARY = "confidence on forget rows"
COLUMNS = ("confidence",)
WEIGHT = "description"


def cost(settings, rows):
    return Cost(evaluated=3 * rows["forget"])


def run(subject, settings):
    rows = subject.rows("forget")
    sure = {role: subject.observe(subject.kept(role), rows, COLUMNS)["confidence"] for role in ROLES}
    return Found((read_scale("confidence", sure, span=1.0),), "It is as sure as that.")
'''


def test_a_test_of_ones_own_is_one_file(tmp_path, subject_of):
    (tmp_path / "sure.py").write_text(OWN_FILE)
    held = read_test(str(tmp_path / "sure.py"))
    subject = subject_of("base")
    check_capable(str(tmp_path / "sure.py"), subject.task)
    reading = held.run(subject, checked_settings(str(tmp_path / "sure.py"), {})).counted
    assert reading.informative and reading.position == pytest.approx(1.0)
    (tmp_path / "less.py").write_text('SUMMARY = "x"\n')
    with pytest.raises(InputError, match="lacks run, cost"):
        read_test(str(tmp_path / "less.py"))
