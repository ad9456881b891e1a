"""The one exception that means "the user can fix this"; every room may import it.

The command line prints it as it is, without a traceback, and exits with status 2. Anything else that escapes is a
defect of ours and keeps its traceback.
"""

from typing import Literal, Self

# Who prints a mistake when several ranks run: each rank that has it (the same words once), the first rank of each
# machine (what a machine's ranks find alike), or rank 0 (what every rank knows).
Reporter = Literal["rank", "machine", "rank 0"]


class UserError(Exception):
    """A mistake in the input, as what was found, what was expected and where to fix it.

    Use it for files, configuration and data that came from outside. Programming errors stay ValueError and friends.
    """

    reporter: Reporter = "rank"

    def __init__(self, *, found: str, expected: str, fix: str) -> None:
        self.found = found
        self.expected = expected
        self.fix = fix
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


def _user_error(found: str, expected: str, fix: str) -> UserError:
    return UserError(found=found, expected=expected, fix=fix)
