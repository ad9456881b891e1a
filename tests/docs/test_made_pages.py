"""Pages that are made are those that the schema and the recipes give; what a page quotes is said by the code.

Breaks that turn this file red: a key, a comment or a default that changed without `python -m scripts.docs`.
"""

import re
from dataclasses import fields, is_dataclass
from xml.etree import ElementTree

import pytest

from bert_lamb.config.door import SCHEMAS
from bert_lamb.config.pretrain import PhaseConfig, PretrainConfig
from scripts.docs import configuration, recipes
from scripts.docs.staging import CHECKOUT

# What stands for something else in a quoted message: ..., RUN, HOST:PORT, numbers, rank 1 (host2), KEY=...
STAND_INS = re.compile(r"\.\.\.|\(?[A-Z]{3,}\S*|rank \d \(host\d\)|\S*\d\S*")


@pytest.mark.parametrize("made", [configuration, recipes], ids=["configuration", "recipes"])
def test_the_page_is_up_to_date(made):
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "python -m scripts.docs"


def test_every_key_of_every_command_has_a_row():
    """Truth: the fields of the dataclasses, through their own interface."""
    text = configuration.PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    for schema in configuration.schemas():
        keys = re.findall(r"^\| `(\w+)` \|", sections[schema.__name__], flags=re.MULTILINE)
        assert keys == [field.name for field in fields(schema)], schema
    assert {PretrainConfig, PhaseConfig, *SCHEMAS.values()} <= set(configuration.schemas())
    assert all(is_dataclass(schema) for schema in configuration.schemas())


@pytest.mark.parametrize(
    ("section", "row"),
    [
        ("PhaseConfig", "| `max_seq_length` | whole number | required | tokens |"),
        ("MaskingConfig", "| `whole_word` | true, false | `false` | all pieces of a word are predicted together,"),
        ("LambConfig", "| `betas` | 2 of number | `(0.9, 0.999)` |"),
        ("LarsConfig", "| `param_norm_bounds` | list of number, or null | null | \\[lower, upper]: phi clips"),
        (
            "PretrainConfig",
            "| `initial_weights` | text, or null | null | A folder with a Hugging Face BERT to start from",
        ),
        ("PretrainConfig", "| `phases` | entries of [PhaseConfig](#phaseconfig) |"),
    ],
)
def test_rows_say_type_default_and_comment(section, row):
    (schema,) = [one for one in configuration.schemas() if one.__name__ == section]
    assert row.replace("\\[", "[") in configuration.section(schema)


def test_symptoms_are_messages_of_the_code():
    """Each literal run of words of a quoted symptom, in the source with its strings joined."""
    page = (CHECKOUT / "docs" / "resume_and_faults.md").read_text()
    table = page.partition("## By symptom")[2].partition("\n## ")[0]
    source = "\n".join(file.read_text() for file in (CHECKOUT / "bert_lamb").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    pieces = []
    for row in table.splitlines()[4:]:
        for quoted in re.findall(r"`([^`]+)`", row.split("|")[1] if row.startswith("|") else ""):
            quoted = re.sub(r"^(found|expected) ", "", quoted)
            pieces += [piece.strip(" ,;:()") for piece in STAND_INS.split(quoted)]
    pieces = [piece for piece in pieces if len(piece.split()) >= 2]
    assert len(pieces) >= 15
    assert [piece for piece in pieces if piece not in source] == []


def test_the_picture_follows_the_readers_scheme():
    """An SVG that parses, with a colour of its own for the dark scheme wherever it has one for the light."""
    root = ElementTree.parse(CHECKOUT / "docs" / "path.svg").getroot()
    style = next(root.iter("{http://www.w3.org/2000/svg}style")).text
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    assert set(re.findall(r"\.(\w+) \{", light)) == set(re.findall(r"\.(\w+) \{", dark))
    width, height = (float(number) for number in root.get("viewBox").split()[2:])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(box.get(key)) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
