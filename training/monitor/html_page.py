"""One page of HTML that needs no other file: tables, and pictures within the text. All text is escaped."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

WIDEST = 1600
"""Larger pictures are shrunk, or the page would be too large to open."""
STYLE = """
body { background: #181a1f; color: #dee2e8; font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .2em .9em .2em 0; text-align: left; vertical-align: top }
th { color: #8b909b; font-weight: normal } td { font-variant-numeric: tabular-nums } img { max-width: 100%; display: block; margin: 1em 0 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } .pixels { image-rendering: pixelated; min-width: 50% }
"""


def render_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Renders a page of parts that are HTML; `style` is added to STYLE."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}{style}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def render_table(heads: Sequence[str], rows: Iterable[Sequence]) -> str:
    def line(tag: str, cells: Sequence) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line("th", heads), *(line("td", row) for row in rows), "</table>"])


def render_image(picture: Image.Image, title: str, kind: str = "", widest: int = WIDEST) -> str:
    """Renders an img element that holds the picture, shrunk to a width of `widest` pixels; `kind` is its CSS class."""
    buffer, form = io.BytesIO(), "jpeg" if picture.width > widest else "png"
    picture = picture.convert("RGB")
    picture.thumbnail((widest, picture.height))
    picture.save(buffer, format=form)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(title)}" src="data:image/{form};base64,{data}">'
