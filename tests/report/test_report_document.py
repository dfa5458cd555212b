"""The results as a document in Markdown, the searches, and the figure of cost against gap."""

import pytest
from report_example import class_results, record, row, seeds_results, write_run
from typer.testing import CliRunner

from negmerge.cli import app
from negmerge.report.document import results_document
from negmerge.report.explain import measured
from negmerge.report.figures.cost import cost_figure, costs_of
from negmerge.report.page import write_report
from negmerge.report.searches import search_table
from negmerge.report.tables import gap_table, markdown_table

SEARCH = {
    "ranges": {"lr": [0.01, 0.1], "epochs": [5]},
    "candidates": [
        {"settings": {"lr": 0.01, "epochs": 5}, "scores": {"forget": 80.0}, "failed": None, "seconds": 30.0},
        {"settings": {"lr": 0.1, "epochs": 5}, "scores": None, "failed": "training diverged", "seconds": 60.0},
    ],
    "winner": {"lr": 0.01, "epochs": 5},
    "index": 0,
    "seconds": 65.0,
}


def competitor(**numbers):
    return row("fine-tune", "train", ["retain"], forget=80.0, retain=99.0, test=90.0, seconds=120.0, **numbers)


def table_results():
    """A run of three seeds with a reference, a searched row, and a second Retrain model on one seed."""
    results = seeds_results()
    results["reference"] = row("reference", "reference", ["retain"], forget=0.0, retain=99.8, test=97.0, membership=5.0)
    parts = [{"retain": 1.0, "forget": f, "test": 2.0, "membership": 4.0} for f in (3.0, 5.0, 7.0)]
    rows = [competitor(gap=1.75 + p["forget"] / 4, gap_parts=p, membership=9.0) for p in parts]
    mean = {**rows[1], "std": {"gap": 0.5, "seconds": 30.0}, "seeds": rows, "search": SEARCH}
    again = row("again", "train", ["retain"], method="retrain", settings={"seed": 1}, gap=0.6, gap_parts=parts[0])
    results["methods"] |= {"fine-tune": mean, "again": {**again, "seconds": 300.0, "std": {}, "seeds": [again]}}
    return results


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_the_document_has_means_deviations_and_denominators():
    text = results_document(table_results(), record())
    assert text.startswith("# ") and text.endswith("\n") and "\n\n\n" not in text
    assert "Seeds 0, 1, 2; mean ± standard deviation." in text and "Example 9000, 4 cores, cpu, torch 2.13.0" in text
    table, gaps = text.split("## The parts of the gap")
    assert "| minutes |" in table and "seconds" not in table
    assert line_of(table, "| fine-tune").endswith("| 2.0\u00a0±\u00a00.5 |")
    assert line_of(table, "| again (one seed)").endswith("| 5.0 |")
    plain = line_of(gaps, "| fine-tune").replace("\u00a0", " ")
    assert plain == "| fine-tune | 5.0 ± 2.0 | 1.0 ± 0.0 | 2.0 ± 0.0 | 4.0 ± 0.0 | 3.0 ± 0.5 |"
    rows = class_results()["task"]["rows"]
    assert f"forget of {rows['forget']:,} rows" in text and f"test of {rows['test']:,} rows" in text
    assert "from another seed, has a gap of 0.6" in text


def test_searches_stand_with_range_winner_and_what_diverged():
    results = table_results()
    (found,) = search_table(results)
    assert (found.ranges, found.winner) == ("lr: 0.01, 0.1; epochs: 5", "lr 0.01, epochs 5")
    assert (found.tried, found.seconds) == ("2 (1 diverged)", "1\u00a0min\u00a005\u00a0s")
    text = results_document(results, record())
    assert "| fine-tune | lr: 0.01, 0.1; epochs: 5 | lr 0.01, epochs 5 | 2 (1 diverged) |" in text
    assert "Settings searched" not in results_document(class_results(), record())


def test_folders_of_the_machine_stay_out_of_the_document():
    command = "negmerge run configs/a.yaml --set data.path=/srv/some/cifar10 --set 'base={checkpoint: /srv/m/o.pt}'"
    text = results_document(class_results(), {**record(), "command": command})
    assert "configs/a.yaml --set data.path=…/cifar10 --set 'base={checkpoint: …/o.pt}'" in text and "/srv" not in text


def test_a_second_retrain_model_stands_among_the_gaps_the_target_does_not():
    results = table_results()
    results["methods"]["retrain"] = row("retrain", "train", ["retain"], gap=0.0, seconds=9.0)
    names = [name for name, _, _ in gap_table(results)]
    assert "again (one seed)" in names and "retrain" not in names


def test_the_cost_figure_names_every_method_with_time_and_gap(tmp_path):
    results = table_results()
    costs = costs_of(results, "fine-tune")
    assert [(cost.label, cost.minutes, cost.main) for cost in costs] == [
        ("fine-tune", 2.0, True),
        ("again", 5.0, False),
    ]
    figure = cost_figure(costs, 20.0, "cost")
    assert "fine-tune: 2.0 minutes, gap 3.0. again: 5.0 minutes, gap 0.6." in figure
    assert figure == cost_figure(costs, 20.0, "cost") and figure.count(">again<") == 1
    page = write_report(write_run(tmp_path, results)).read_text()
    assert "What it costs" in page and "2 (1 diverged)" in page
    assert "What it costs" not in write_report(write_run(tmp_path / "one", class_results())).read_text()


def test_seconds_stay_seconds_in_the_short_table():
    assert line_of(markdown_table(table_results()), "| fine-tune").endswith("| 120.0\u00a0±\u00a030.0 |")


def test_the_command_writes_the_document(tmp_path):
    run = write_run(tmp_path / "run", table_results())
    target = tmp_path / "docs" / "table.md"
    done = CliRunner().invoke(app, ["report", str(run), "--markdown", str(target)])
    assert done.exit_code == 0 and done.stdout.strip() == str(target)
    assert target.read_text() == results_document(*_read(run)) and not (run / "report.html").exists()


def _read(run):
    from negmerge.report.inputs import read_run

    return read_run(run)


@pytest.mark.parametrize("search", [{"candidates": 3}, {"ranges": []}])
def test_a_wrong_search_is_one_clear_line(search):
    results = table_results()
    results["methods"]["fine-tune"]["search"] = search
    with pytest.raises(Exception, match=r"methods.fine-tune.search\.\w+ should be"):
        markdown_table(results)


def test_gaps_stand_seed_by_seed_with_who_is_closer():
    results = table_results()
    for one, gap in zip(results["methods"]["consensus"]["seeds"], (2.0, 3.5, 3.0), strict=True):
        one["gap"] = gap
    text = results_document(results, record()).split("## Seed by seed")[1]
    assert line_of(text, "| gap of") == "| gap of | seed 0 | seed 1 | seed 2 | consensus is closer in |"
    assert line_of(text, "| consensus") == "| consensus | 2.0 | 3.5 | 3.0 |  |"
    assert line_of(text, "| fine-tune") == "| fine-tune | 2.5 | 3.0 | 3.5 | 2 of 3 |"
    assert line_of(text, "| again") == "| again | 0.6 |  |  | 0 of 1 |"
    assert "Seed by seed" not in results_document(class_results(), record())


def test_what_a_row_was_made_with_stands_below_the_tables():
    results = table_results()
    results["methods"]["consensus"]["buffers"] = "recalibrate on 500 forget rows"
    text = results_document(results, record()).split("## Settings\n")[1]
    assert line_of(text, "* consensus: ").endswith("; running statistics: recalibrate on 500 forget rows")
    assert "* uniform: " not in text  # it has none
    assert "running statistics" not in results_document(table_results(), record())
    # Where the run negates them, it is said of a row that keeps them.
    results["model"]["buffers"] = "negate"
    results["methods"]["uniform"]["buffers"] = "keep"
    assert line_of(results_document(results, record()), "* uniform: ").endswith("running statistics: keep")


def test_what_selection_saw_is_said_by_objective():
    results = table_results()
    rows = results["task"]["rows"]
    validation = f"{rows['validation']:,} validation rows"
    for objective, seen, search in (
        ("retain-floor", "retain rows.", "halves the interval"),
        ("match-reference", f"retain rows, {validation} and the retrained model.", "narrows the interval"),
        ("match-holdout", f"retain rows and how the original treats {validation}.", "narrows the interval"),
    ):
        results["selection"] |= {"objective": objective, "search": "bracket"}
        assert f"{seen} Minutes include" in results_document(results, record())
        said = " ".join(measured(results))
        assert search in said and seen.rstrip(".") in said


def test_a_sample_is_the_denominator_where_one_was_evaluated():
    results = table_results()
    results["task"]["evaluated"] = {**results["task"]["rows"], "retain": 50, "forget": 20}
    assert "forget of 20 rows" in results_document(results, record())
    said = " ".join(measured(results))
    assert "The table above uses a fixed sample of 50 retain and 20 forget rows" in said
    assert "The table above uses all retain rows" in " ".join(measured(table_results()))


def test_how_far_the_choice_without_a_retrained_model_lands_is_said():
    results = table_results()
    results["methods"]["consensus"] |= {"alpha": 2.0, "oracle": {"alpha": 2.5, "gap": 3.0, "gap_chosen": 4.25}}
    text = results_document(results, record()).split("## Chosen without the retrained model\n")[1]
    told = "with the retrained model at hand it would have been 2.5, with a gap of 3.0 instead of 4.2"
    assert told in line_of(text, "* consensus: ").replace("\u00a0", " ")
    assert told in " ".join(measured(results)).replace("\u00a0", " ")
