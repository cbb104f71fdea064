"""The page about one compilation: `DIR/index.html`, made from what `--dump-ir DIR` left in the folder.

`dumps` reads the folder, `textdiff` and `graphdiff` compare what lies before and after a pass, `planview` describes the
plan, `data` puts all of it into one JSON-able record, and `page` puts that, the scripts in `assets` and the libraries
in `vendor` into one file that needs no network.
"""

from __future__ import annotations

from sqzc.report.data import report_data
from sqzc.report.dumps import PAGE, read_dumps
from sqzc.report.page import render_page, write_report

__all__ = ["PAGE", "read_dumps", "render_page", "report_data", "write_report"]
