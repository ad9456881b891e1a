"""What tables of every kind have in common: a column of text, null for an empty one."""

from bert_lamb.errors import UserError
from data_prep.sources import content
from data_prep.sources.source import Source


def no_such_column(source: Source, columns: object, place: str) -> UserError:
    return UserError(
        found=f"columns {columns} in {place}",
        expected=f"a column {source.text_column!r}",
        fix=f"set sources.{source.name}.text_column",
    )


def text_of(value: object, source: Source, place: str) -> str:
    """A value of the text column; null is an empty text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            found=f"{source.text_column} of type {type(value).__name__} in {place}",
            expected="text",
            fix=f"set sources.{source.name}.text_column",
        )
    if value.startswith(" = ") and content.TITLE_OF_WIKITEXT.fullmatch(value):
        raise UserError(
            found=f"a title of WikiText as a row of its own ({value.strip()!r} in {place}): its rows are lines",
            expected="a document a row",
            fix=f"write the rows to a file, one after the other, and set sources.{source.name}.kind=wikitext and .path",
        )
    return value


def without_surrogates(text: str, place: str) -> str:
    """JSON can write half a character ("\\ud800"), which UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            found=f"half of a surrogate pair at character {error.start} of the text in {place}",
            expected="text that can be written in UTF-8",
            fix="correct the file",
        ) from error
    return text
