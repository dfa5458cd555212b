"""The page: self-contained, whole, escaped, deterministic, and with the numbers of the run."""

import re
from html.parser import HTMLParser

import pytest
from report_example import MEMBERS, class_results, random_results, record, seeds_results, write_run

from negmerge.errors import InputError
from negmerge.report import write_report

RESULTS = {"class": class_results, "random": random_results, "seeds": seeds_results}
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects what the tests ask about, and insists that every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.refs, self.tags, self.words, self.images = [], [], [], [], [], []
        self.stack = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.links.append(value)
            self.refs += re.findall(r"url\(#([^)]+)\)", value or "")
        if tag == "svg":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words).replace("\xa0", " "))


def page_of(directory, results=None, recorded=None):
    return write_report(write_run(directory, results, recorded)).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", RESULTS)
def test_page_is_whole_and_asks_for_nothing(kind, tmp_path):
    html = page_of(tmp_path, RESULTS[kind]())
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "@import" not in html and "http://" not in html and "https://" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)\)", html))
    assert not {"script", "iframe", "object", "embed", "img"} & set(page.tags)
    assert len(html.encode()) < 300_000
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("kind", RESULTS)
def test_figures_have_a_text_and_ids_of_their_own(kind, tmp_path):
    page = Page(page_of(tmp_path, RESULTS[kind]()))
    # three curves, classes, layers, cosines; with a reference also minutes against gap
    assert len(page.images) == 6 + (kind == "random")
    assert all(image["role"] == "img" and len(image["aria-label"]) > 40 for image in page.images)
    assert len(page.ids) == len(set(page.ids))
    wanted = {*page.refs, *(link[1:] for link in page.links if link.startswith("#"))}
    assert wanted and wanted <= set(page.ids)


def test_figures_take_the_colours_of_the_page(tmp_path):
    html = page_of(tmp_path)
    figures = re.findall(r"<svg.*?</svg>", html, re.S)
    assert figures and all("var(--" in figure for figure in figures)
    assert not any(re.search(r"#[0-9a-f]{6}\b", figure) for figure in figures)
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("kind", RESULTS)
def test_equal_inputs_give_equal_bytes(kind, tmp_path):
    assert page_of(tmp_path / "a", RESULTS[kind]()) == page_of(tmp_path / "b", RESULTS[kind]())


def test_page_holds_the_numbers(tmp_path):
    text = Page(page_of(tmp_path)).text
    for expected in (
        "forget class 3 of digits",
        "129 images",
        "38,282 parameters",
        "it now gets 1.9 % right, before 99.3 %",
        "the floor of 94.6 %",
        "α = 1.35",
        "24.7 % of the weights (9,458 of 38,282)",
        "0.4 % would agree by chance",
        "1 min 01 s",
        "negmerge run configs/demo.yaml -o runs/demo",
        "pool.grid.epochs = [4, 8, 12]",
        "nm1:" + "ab" * 32,
        "512 MB",
        *MEMBERS,
    ):
        assert expected in text, expected
    assert "None" not in text and "nan" not in text and "Undefined" not in text


def test_random_forgetting_shows_the_target_and_admits_what_selection_saw(tmp_path):
    text = Page(page_of(tmp_path, random_results())).text
    assert "Average gap to retraining" in text and "10.3" in text
    assert "the very images that were to be forgotten" in text
    assert "As low as possible is not the aim" in text
    assert "where the forget line is in a model retrained without these images" in text


def test_several_seeds_show_their_spread(tmp_path):
    results = seeds_results()
    text = Page(page_of(tmp_path, results)).text
    row = results["methods"]["consensus"]
    assert f"{row['forget']:.1f} ± {row['std']['forget']:.1f}" in text
    assert "repeated with 3 seeds (0, 1, 2)" in text and "one seed" not in text


def test_warnings_are_explained(tmp_path):
    text = Page(page_of(tmp_path, random_results())).text
    assert "retain-damage" in text and "The merged direction" not in text
    assert "not specific to the forget set" in text and "To do: try another policy" in text
    assert "Warning" not in Page(page_of(tmp_path / "calm")).text


def test_every_text_of_the_user_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>\"'&$x^2$\x00"
    results, recorded = class_results(), record()
    results["name"] = results["task"]["text"] = results["task"]["source"] = bad
    results["task"]["classes"] = [f"{bad}{i}" for i in range(10)]
    results["task"]["forget_classes"] = [f"{bad}3"]
    results["model"]["family"] = bad
    results["methods"][bad] = {**results["methods"]["uniform"], "label": bad, "needs": [bad], "note": bad}
    results["methods"]["consensus"]["layers"][0]["name"] = bad
    results["methods"]["consensus"]["settings"] = {bad: bad}
    results["pool"]["members"][0] |= {"name": bad, "settings": {bad: bad}}
    results["warnings"] = [{"name": bad, "method": bad, "text": bad}]
    recorded |= {"command": bad, "config": {bad: bad}, "versions": {bad: bad}}
    recorded["inputs"][0] |= {"path": bad, "hash": bad}
    recorded["stages"][0]["name"] = recorded["machine"]["cpu"] = bad
    html = page_of(tmp_path, results, recorded)
    assert "script" not in Page(html).tags
    assert "<script" not in html and "\x00" not in html
    assert html.count("&lt;script&gt;") > 15


def test_only_what_must_be_there_is_needed(tmp_path):
    results = class_results()
    little = {"label": None, "forget": 1.0, "retain": 97.0, "alpha": None}
    text = Page(
        page_of(
            tmp_path,
            {
                "format": 1,
                "name": "bare",
                "task": {"kind": "class"},
                "base": {"forget": 99.0, "retain": 98.0},
                "methods": {"consensus": little},
                "pool": None,
                "selection": None,
                "reference": None,
                "warnings": None,
            },
            {},
        )
    ).text
    assert "–" in text and "None" not in text
    results["methods"] = {}
    assert "No method was run" in Page(page_of(tmp_path, results)).text


def test_many_classes_layers_and_members_stay_small(tmp_path):
    results = class_results()
    names = [f"class number {i}" for i in range(1000)]
    results["task"] |= {"classes": names, "forget_classes": names[500:501]}
    results["base"]["per_class"] = [90.0] * 1000
    results["methods"]["consensus"]["per_class"] = [90.0 - i % 7 for i in range(1000)]
    results["methods"]["consensus"]["layers"] = [
        {"name": f"block.{i}.weight", "elements": 1000 + i, "kept": 10 * (i % 50)} for i in range(300)
    ]
    member = results["pool"]["members"][0]
    results["pool"] |= {
        "members": [member] * 30,
        "cosine": [[0.1 * ((i + j) % 11) for i in range(30)] for j in range(30)],
    }
    html = page_of(tmp_path, results)
    text = Page(html).text
    assert len(html.encode()) < 500_000
    assert "40 of 1000 classes: the forgotten and the most changed" in text
    assert "class number 500" in text and "The 48 largest of 300 layers" in text


def test_a_wider_threshold_has_its_own_chance_level(tmp_path):
    results = class_results()
    results["methods"]["consensus"]["settings"]["threshold"] = 0.8  # 8 of 9: 2 · (9 + 1) / 2⁹
    text = Page(page_of(tmp_path, results)).text
    assert "at least 80.0 % of the fine-tuned copies" in text and "3.9 % would agree by chance" in text


@pytest.mark.parametrize("name", ["results.json", "record.json"])
def test_a_missing_file_is_named(name, tmp_path):
    (write_run(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf"{name} does not exist; `negmerge run CONFIG -o ") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"results\.json is not valid JSON .*`negmerge run` writes it again"),
        ("[]", r"results\.json: expected an object, got a list"),
        ("{}", r"reads format 1, got 'none'"),
        ('{"format": 2}', r"reads format 1, got 2"),
        ('{"format": 1, "name": "x"}', r"'task' is missing"),
        (
            '{"format": 1, "name": "x", "task": 3, "base": {}, "methods": {}}',
            r"task should be an object, got a number",
        ),
        (
            '{"format": 1, "name": "x", "task": {}, "base": {"forget": "lots"}, "methods": {}}',
            r"base\.forget should be a number, got a text",
        ),
        (
            '{"format": 1, "name": "x", "task": {}, "base": {}, "methods": {"a": {"curve": [1]}}}',
            r"methods\.a\.curve\[0\] should be an object, got a number",
        ),
    ],
)
def test_a_wrong_file_is_one_clear_line(text, message, tmp_path):
    (write_run(tmp_path) / "results.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_nan_is_a_missing_value(tmp_path):
    results = class_results()
    results["methods"]["uniform"]["test"] = float("nan")
    results["methods"]["uniform"]["curve"][1]["retain"] = float("inf")
    assert "nan" not in Page(page_of(tmp_path, results)).text


def test_an_earlier_page_is_replaced(tmp_path):
    write_run(tmp_path)
    (tmp_path / "report.html").write_text("old")
    (tmp_path / ".report.html.partial").write_text("interrupted")
    write_report(tmp_path)
    assert "<!DOCTYPE html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / ".report.html.partial").exists()
