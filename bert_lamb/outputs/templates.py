"""Texts that are filled into a template: pages (HTML) and cards (Markdown).

Pages share their look and their table of contents: a template may include page.css and page_contents.html.j2 of this
folder, beside what its own folder has.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

SHARED = Path(__file__).parent


def render(
    template: Path, facts: Mapping[str, Any], *, is_html: bool, filters: Mapping[str, Callable[..., Any]] | None = None
) -> str:
    """The template, a file of Jinja, with the facts, of which none that it names may be missing.

    is_html: what comes from outside is escaped. A line that holds nothing but a tag of Jinja leaves nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, SHARED]),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(template.name).render(facts)
