"""Results → one self-contained page, and small tables; imports no torch."""

from negmerge.report.page import write_document, write_report
from negmerge.report.tables import markdown_table, summary_table

__all__ = ["markdown_table", "summary_table", "write_document", "write_report"]
