"""The tables of docs/formats.md, made from the cases that the tests run: `make docs` writes them there."""

from pathlib import Path

from formats.reading import ADAPTERS, MODELS, WRITTEN
from formats.refusing import REFUSED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def readable() -> str:
    """The table of what is read, and written."""
    rows = ["| | as base | as member | read in pieces | written as OUT |", "|---|---|---|---|---|"]
    written = {form.title: form.output for form in WRITTEN}
    for model in MODELS:
        output = {"out.safetensors": "yes", "out": "yes"}.get(written.get(model.title, ""), "no")
        rows.append(f"| {model.title} | yes | yes | yes | {output} |")
    for kind in ADAPTERS:
        output = "by `--as-adapter`" if kind.written else "no"
        rows.append(f"| {kind.title} | no | yes | ΔW yes, its factors whole | {output} |")
    return "\n".join(rows)


def refused() -> str:
    """The table of what is refused, and what the message says to do."""
    tools: dict[str, list[str]] = {}
    for case in REFUSED:
        tools.setdefault(case.tool, []).append(case.title)
    rows = [f"| {', '.join(titles)} | `{tool}` |" for tool, titles in tools.items()]
    return "\n".join(["| refused | the message says |", "|---|---|", *rows])


def renewed(page: str) -> str:
    """Return the page with its tables replaced; what is between the marks is not written by hand."""
    for name, table in (("readable", readable()), ("refused", refused())):
        begin, end = f"<!-- {name}: made by `make docs` -->\n", f"\n<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{PAGE} has no marks for the table {name}")
        page = before + begin + table + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
