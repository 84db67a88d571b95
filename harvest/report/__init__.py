"""report.html: one self-contained page that shows what a run found, how sure it is, and where it may be wrong."""

from harvest.report.content import ReportContent
from harvest.report.page import write_report

__all__ = ["ReportContent", "write_report"]
