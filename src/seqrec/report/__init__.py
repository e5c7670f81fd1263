"""The report: one self-contained HTML page with tables and plots.

from seqrec import report
report.write("benchmarks/results", "report.html")
"""

from seqrec.report.page import render, write

__all__ = ["render", "write"]
