"""README.md of a model folder, in the form that hubs of models read: Markdown after a head of YAML."""

import os
from pathlib import Path
from typing import Any

from bert_lamb import __version__
from bert_lamb.outputs.templates import render


def render_card(template: Path, **facts: Any) -> str:
    """The text of a card. template: a file of Jinja; it sees `version`, the filter `number` and the facts."""
    return render(template, {"version": __version__, **facts}, is_html=False, filters={"number": "{:,}".format})


def share_files(folder: Path) -> None:
    """Give the files of a folder the rights that new files have here: safetensors lets their owner alone read them."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.iterdir():
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~umask)
