"""Results → one self-contained page, and small tables; imports no torch."""

from negmerge.report.page import write_document, write_report
from negmerge.report.side_by_side import write_comparison
from negmerge.report.tables import html_table, markdown_table, summary_table

__all__ = ["html_table", "markdown_table", "summary_table", "write_comparison", "write_document", "write_report"]
