"""The one exception that means "the user can fix this"; every room may import it.

The command line prints it as it is, without a traceback, and exits with status 2. Anything else that escapes is a
defect of ours and keeps its traceback.
"""

from typing import Literal, Self

# Who prints a mistake when several ranks run: each rank that has it (the same words once), the first rank of each
# machine (what a machine's ranks find alike), or rank 0 (what every rank knows).
Reporter = Literal["rank", "machine", "rank 0"]


MAX_CHARACTERS = 1_500  # of each part of a line; a value may be a whole file


class UserError(Exception):
    """A mistake in the input, as what was found, what was expected and where to fix it.

    Use it for files, configuration and data that came from outside. Programming errors stay ValueError and friends.
    Its text is one line of characters that can be seen, whatever the parts quote; the parts stay as they are.
    """

    reporter: Reporter = "rank"

    def __init__(self, *, found: str, expected: str, fix: str) -> None:
        self.found = found
        self.expected = expected
        self.fix = fix
        found, expected, fix = map(in_one_line, (found, expected, fix))
        super().__init__(f"found {found}; expected {expected}; fix: {fix}")

    def reported_by(self, reporter: Reporter) -> Self:
        """This error, with the one who prints it."""
        self.reporter = reporter
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """Cross from a worker process to the one that prints it."""
        return _user_error, (self.found, self.expected, self.fix)


class UserErrors(UserError):
    """Several complaints at once, so that a configuration is fixed in one round."""

    def __init__(self, complaints: list[UserError]) -> None:
        self.complaints = complaints
        Exception.__init__(self, "\n".join(str(complaint) for complaint in complaints))

    def __reduce__(self) -> tuple[object, ...]:
        return UserErrors, (self.complaints,)


def in_one_line(text: str) -> str:
    """The text with escapes for what would move a terminal's cursor or end the line; of a long one both ends."""
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]} ... {len(text) - 2 * half:,} characters ... {text[-half:]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _user_error(found: str, expected: str, fix: str) -> UserError:
    return UserError(found=found, expected=expected, fix=fix)
