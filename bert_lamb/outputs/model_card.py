"""README.md of a model folder, in the form that hubs of models read: Markdown after a head of YAML."""

import os
from pathlib import Path
from typing import Any

import jinja2

from bert_lamb import __version__


def render_card(template: Path, **facts: Any) -> str:
    """The text of a card. template: a file of Jinja; it sees `version`, the filter `number` and the facts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=False,  # Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = "{:,}".format
    return environment.get_template(template.name).render(version=__version__, **facts)


def share_files(folder: Path) -> None:
    """Give the files of a folder the rights that new files have here: safetensors lets their owner alone read them."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.iterdir():
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~umask)
