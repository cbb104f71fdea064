"""The page itself: one HTML file with its data, scripts, styles and libraries inside, so that it needs no network."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqzc.ir.files import write_text
from sqzc.report.data import report_data
from sqzc.report.dumps import PAGE, read_dumps

LIBRARIES = ("cytoscape.min.js", "cytoscape-dagre.min.js")
SCRIPTS = ("tools.js", "pipeline.js", "diff.js", "graph.js", "details.js", "arena.js", "kernels.js", "main.js")


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Makes the page of a dump's folder, by default `index.html` in it, and gives its path."""
    path = folder / PAGE if output is None else output
    write_text(path, render_page(report_data(read_dumps(folder))))
    return path


def render_page(data: dict[str, Any]) -> str:
    """The text of the page. Equal data give equal pages."""
    parts = {
        "TITLE": html.escape(f"{data['model']}: passes and plan"),
        "STYLE": _asset("page.css"),
        "LIBRARIES": "\n".join(_script(_vendored(name)) for name in LIBRARIES),
        "DATA": script_json(data),
        "SCRIPTS": "\n".join(_script(_asset(name)) for name in SCRIPTS),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match.group(1)], _asset("page.html"))


def script_json(data: Any) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script(text: str) -> str:
    assert "</script" not in text.lower(), "a script that ends its own element"
    return f"<script>\n{text}\n</script>"


def _asset(name: str) -> str:
    return (files("sqzc.report") / "assets" / name).read_text(encoding="utf-8")


def _vendored(name: str) -> str:
    """A library without the reference to its source map, which a page would look for."""
    text = (files("sqzc.report") / "vendor" / name).read_text(encoding="utf-8")
    return re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)
