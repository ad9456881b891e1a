"""Every command that a page shows composes, with the configuration as it is.

Truth: the schema and conf/, through the door that the command line itself uses. A command that is shown in part, with
`...`, gets what its command asks for.
"""

import re

import pytest

from bert_lamb.cli.compose import compose
from bert_lamb.cli.main import SUMMARIES
from scripts.docs.staging import CHECKOUT, pages
from tests.docs.commands import commands_of, overrides_of

# What a page stands for with "...", and placeholders of a kind that the schema would refuse.
RUN = {"recipe": "demo", "shards": "S", "run_dir": "R"}
CORPUS = {"corpus": "text", "sources.text.path": "T"}
REST = {
    "pretrain": RUN,
    "doctor": {"shards": "S"},
    "plan": {"recipe": "demo"},
    "prepare": {**CORPUS, "output_dir": "O"},
    "export": {"run_dir": "R", "output_dir": "E"},
    "glue": {"task": "mrpc", "model_dir": "M", "data_dir": "D", "run_dir": "R"},
    "import": {"source": "S", "output_dir": "F"},
    "study": {"study": "batch_scaling", **RUN},
    "vision": {"recipe": "mnist_lenet", "data": "D", "run_dir": "R"},
    "squad": {"model_dir": "M", "train_file": "T", "eval_file": "E", "run_dir": "R"},
}
MEANT = {"seed=S": "seed=1"}
SHOWN = {
    (command.name, *sorted(command.words)): command
    for page in pages()
    for command in commands_of(page)
    if page.name != "CHANGELOG.md"
}


def completed(command):
    """Its overrides, and for `...` what is missing."""
    words = [MEANT.get(word, word) for word in overrides_of(command)]
    if "..." in command.words:
        keys = {word.partition("=")[0].lstrip("+") for word in words}
        words = [*(f"{key}={value}" for key, value in REST.get(command.name, {}).items() if key not in keys), *words]
    return words


def test_commands_compose():
    refused = []
    for command in SHOWN.values():
        if "--config-dir" in command.words or "--help" in command.words or command.name == "COMMAND":
            continue
        try:
            compose(command.name, completed(command))
        except Exception as error:  # whatever it is, the page is wrong
            refused.append(f"{command.page.relative_to(CHECKOUT)}: {command.line}\n    {error}")
    assert not refused, "\n".join(refused)


def test_pages_show_what_they_are_about():
    """That commands are found at all: each page of a task has some, and each command stands on some page."""
    of_page = {page.relative_to(CHECKOUT).as_posix(): list(commands_of(page)) for page in pages()}
    at_least = {"README.md": 5, "docs/own_text.md": 12, "docs/several_machines.md": 9, "docs/fine_tuning.md": 10}
    for page, number in at_least.items():
        assert len(of_page[page]) >= number, page
    shown = {command.name for command in SHOWN.values()}
    assert shown - {"COMMAND"} >= set(SUMMARIES) - {"demo-data"}
    (listed,) = [
        set(re.findall(r"[a-z-]+", block.replace("bert-lamb", "")))
        for block in re.findall(r"(?: {4}bert-lamb [a-z|\- ]+\n)+", (CHECKOUT / "docs/getting_started.md").read_text())
        if "|" in block
    ]
    assert listed == set(SUMMARIES)


@pytest.mark.parametrize("page", ["docs/recipes.md", "docs/large_batches.md"])
def test_pages_of_recipes_name_them_all(page):
    text = (CHECKOUT / page).read_text()
    names = {file.stem for file in (CHECKOUT / "conf" / "recipe").glob("*.yaml")}
    if page == "docs/large_batches.md":
        names = {name for name in names if not re.match(r"lamb_\d+k?$|resnet50|mnist", name)}  # one row, and images
    assert not [name for name in names if name not in text]
