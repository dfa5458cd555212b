"""What the page says of a projection."""

from negmerge.report.comparison import main_method
from negmerge.report.figures.projected import pick, projected_figure
from negmerge.report.projected import sentences, short_text, strengths_table


def layer(name, before, after, forget=1.0):
    return {"name": name, "before": before, "after": after, "forget_before": forget}


DONE = {
    "strength": 10.0,
    "rows": {"forget": {"rows": 120, "about": "forget images"}, "retain": {"rows": 600, "about": "retain images"}},
    "layers": [layer("a.weight", 0.8, 0.2), layer("b.weight", 0.2, 0.05), layer("dead.weight", None, None, 0.0)],
    "others": "leave-out",
    "without": ["norm.weight"],
    "strengths": [
        {"strength": 1.0, "alpha": 2.25, "forget": 14.2, "retain": 100.0},
        {"strength": 10.0, "alpha": 2.65, "forget": 0.0, "retain": 100.0},
    ],
}


def test_the_words_give_rows_ratio_strength_and_what_was_left_out():
    said = sentences({"projection": DONE})
    assert "600 retain images" in said[0]
    assert "120 forget images" in said[0]
    assert said[1].replace("\u00a0", " ").endswith("40.0 % as far as those of what goes; afterwards 10.0 %.")
    assert said[2].startswith("Of the strengths 1 and 10, λ = 10 was chosen")
    assert said[3].endswith("could not be seen were left out of the vector: 1, such as norm.weight.")
    assert sentences({}) == []
    assert short_text({"seeds": [{"projection": DONE}]}) == "projected: λ 10, 600 retain images"
    assert [one["chosen"] for one in strengths_table({"projection": DONE})] == [False, True]


def test_the_figure_shows_the_layers_that_act_on_what_goes():
    shown = pick(DONE["layers"])
    assert [one["name"] for one in shown] == ["a.weight", "b.weight"]
    many = [layer(f"l{i}.weight", 0.5, 0.1, forget=float(i)) for i in range(60)]
    assert [one["name"] for one in pick(many)] == [f"l{i}.weight" for i in range(12, 60)]
    figure = projected_figure(shown, "p")
    assert "a.weight" in figure
    assert "before" in figure


def test_the_page_is_about_the_projected_consensus():
    rows = {"consensus": {"method": "consensus"}, "x": {"method": "consensus", "projection": DONE}}
    assert main_method({"methods": rows}) == "x"
    assert main_method({"methods": {"consensus": rows["consensus"]}}) == "consensus"
