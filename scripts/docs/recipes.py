"""docs/recipes.md: every recipe of conf/recipe, with its figures."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PAGE = CHECKOUT / "docs" / "recipes.md"
HEAD = """# Recipes

Every file of conf/recipe, made by `python -m scripts.docs`; do not edit it. `rule`: settled when a run starts, by the
batch ([large batches](large_batches.md#the-rule)) or by the curve of the first phase. Each file's header has the
source, the command, and which figures are published, recalled or derived.
"""
BEGINS = re.compile(r"[A-Z][\w ]*[:,]")  # the next entry of a header: "Expected here: ..."
TEXT = ["recipe", "phase", "model", "optimizer", "length", "batch", "steps", "peak lr", "warm-up"]
IMAGES = ["recipe", "network", "optimizer", "batch", "peak lr"]


def page() -> str:
    """The text of docs/recipes.md."""
    text, images, said = [], [], []
    for file in sorted((CHECKOUT / "conf" / "recipe").glob("*.yaml")):
        header = [line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("# ")]
        recipe = read(file)
        name = f"[{file.stem}](../conf/recipe/{file.name})"
        said.append(f"| {name} | {header[1]} | {published(header)} |")
        if "phases" in recipe:
            text += phase_rows(name, recipe)
        else:
            images.append(image_row(name, recipe))
    parts = [
        HEAD,
        "## What they are\n",
        table(["recipe", "what", "published"], said),
        "## Pretraining\n",
        table(TEXT, text),
        "## Images\n",
        table(IMAGES, images),
    ]
    return "\n".join(parts)


def table(columns: list[str], rows: list[str]) -> str:
    """A table of Markdown, with the line's end after it."""
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows, ""])


def read(file: Path) -> dict[str, Any]:
    """A recipe as plain values, with the options that it chooses at `chosen`: {"model": "bert_large", ...}."""
    node = OmegaConf.load(file)
    chosen = {key.removeprefix("override /"): value for entry in node.pop("defaults") for key, value in entry.items()}
    for key in ("shards", "initial_weights"):
        node[key] = key.upper()
    recipe = OmegaConf.to_container(node, resolve=True)
    assert isinstance(recipe, dict)
    return {"chosen": chosen, **{str(key): value for key, value in recipe.items()}}


def published(header: list[str]) -> str:
    """What the header says was published, up to its next sentence; empty where it says nothing."""
    for index, line in enumerate(header):
        if line.startswith("Published"):
            rest = list(takewhile(lambda other: not BEGINS.match(other), header[index + 1 :]))
            return " ".join([line.removeprefix("Published").lstrip(":, "), *rest]).replace("|", "\\|")
    return ""


def phase_rows(name: str, recipe: dict[str, Any]) -> list[str]:
    """A row for each phase of a recipe."""
    model = yaml.safe_load((CHECKOUT / "conf" / "model" / f"{recipe['chosen']['model']}.yaml").read_text())
    size = f"{model['num_layers']} x {model['hidden_size']}"
    rows = []
    for phase_name, phase in recipe["phases"].items():
        steps = (
            number(phase["total_steps"]) if "total_steps" in phase else f"{number(phase['num_sequences'])} sequences"
        )
        figures = [phase_name, size, recipe["chosen"]["optimizer"], str(phase["max_seq_length"])]
        figures += [number(phase["global_batch_size"]), steps]
        figures += [rate(phase.get("peak_lr")), rate(phase.get("warmup_proportion"))]
        rows.append(f"| {' | '.join([name, *figures])} |")
    return rows


def image_row(name: str, recipe: dict[str, Any]) -> str:
    chosen = recipe["chosen"]
    figures = [chosen["image_model"], chosen["optimizer"], number(recipe["global_batch_size"]), rate(recipe["peak_lr"])]
    return f"| {' | '.join([name, *figures])} |"


def number(value: int) -> str:
    return f"{value:,}"


def rate(value: float | None) -> str:
    return "rule" if value is None else f"{value:.4g}"
