"""What every page shares: a frame without any link to the network, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from harvest.store.atomic import write_text_atomically

OFFLINE = "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_page(path: Path, body: str, parts: dict[str, str]) -> None:
    """Write a page whose body is a template of this package, filled with parts; one of them is the title."""
    write_text_atomically(path, framed(parts["title"], _fill(resource(body), parts)))


def framed(title: str, body: str, style: str = "", sources: str = OFFLINE) -> str:
    """A page with that body, in the common style and one of its own; it may load from these sources only, which are
    directives of a content security policy.
    """
    parts = {"title": title, "style": resource("style.css") + style, "body": body, "sources": sources}
    return _fill(resource("frame.html"), parts)


def resource(name: str) -> str:
    """A text that comes with this package."""
    return (resources.files("harvest.report") / name).read_text(encoding="utf-8")


def _fill(template: str, parts: dict[str, str]) -> str:
    """The template with each {{name}} replaced once; what is put in is not searched again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def html_table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A table of at least one row; each cell is (class, text), the first of a row is its heading."""
    kinds = [kind for kind, _ in rows[0]]
    top = "".join(f'<th scope="col" class="{kind}">{escape(text)}</th>' for kind, text in zip(kinds, head, strict=True))
    body = ""
    for (_, name), *cells in rows:
        inside = "".join(f'<td class="{kind}">{escape(text)}</td>' for kind, text in cells)
        body += f'<tr><th scope="row">{escape(name)}</th>{inside}</tr>'
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
