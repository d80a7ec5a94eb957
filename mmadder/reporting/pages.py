"""HTML pages: one style, one table, pictures inside the page or beside it.

A page is a Jinja2 template that fills the block ``content`` of ``page.html``
and takes ``table`` and ``picture`` from ``parts.html``. What is put into it
is escaped. Jinja2 comes with torch.
"""
from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from mmadder.files import write_text

from .tables import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = '''\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #e4e7eb; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
dt { font-weight: 650; margin-top: .6rem; }
dd { margin: 0; }
img { max-width: 100%; }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; }
table { border-collapse: collapse; }
tr { border-bottom: 1px solid #e4e7eb; }
td, th { padding: .2rem .9rem .2rem 0; text-align: right; }
th { vertical-align: bottom; overflow-wrap: normal; }
td:first-child, th:first-child { text-align: left; }
.wide { overflow-x: auto; }
.wide td { white-space: nowrap; }
.note { color: #52606d; }
.figure { font-size: 2.6rem; font-weight: 650; color: #0b7285; }
.pictures { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); }
.pictures img { width: 100%; max-width: 34rem; }
.swatch { display: inline-block; width: .8em; height: .8em;
  margin-right: .4em; border-radius: 2px; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; }
  .wide { font-size: 13px; }
  td, th { padding-right: .6rem; }
}
</style>
<h1>{{ title }}</h1>
{% block content %}{% endblock %}
</html>
'''
PARTS = '''\
{% macro table(header, rows, wide=true) %}
<div{% if wide %} class="wide"{% endif %}><table>
{% if header %}
<tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% endif %}
{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell | number }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro picture(source, text) %}
<img src="{{ source }}" alt="{{ text }}">
{% endmacro %}
'''
_SWATCH = Markup('<span class="swatch" style="background:{}"></span>{}')


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Write a page, whole or not at all.

    Args:
        path: file to write.
        template: that ``extends 'page.html'``.
        values: what the template names, ``title`` among them.
    """
    write_text(path, _environment().from_string(template).render(values))


def swatch(colour: str, name: str) -> Markup:
    """Return a name with a spot of its colour in the figures, as a cell."""
    return _SWATCH.format(colour, name)


def embedded(figure: Figure) -> str:
    """Return a figure as a URL that is the picture itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'data:image/png;base64,{data}'


@cache
def _environment():
    environment = Environment(
        loader=DictLoader({'page.html': PAGE, 'parts.html': PARTS}),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True)
    # A swatch is HTML already: str() would have it escaped.
    environment.filters['number'] = lambda cell: (
        cell if isinstance(cell, str) else number(cell))
    return environment
