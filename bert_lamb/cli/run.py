"""Run a command with its typed configuration; what the system refuses, such as a full disk, becomes a UserError."""

from pathlib import Path
from typing import Any

from bert_lamb.cli.quiet import be_quiet
from bert_lamb.cli.system_errors import user_error_of
from bert_lamb.errors import UserError


def run(command: str, config: Any) -> int:
    """The command's exit status."""
    be_quiet()
    from bert_lamb.cli.commands import COMMANDS, OUTPUTS

    output = next((Path(path) for name in OUTPUTS if (path := getattr(config, name, None)) is not None), None)
    again = "run it again" + (" with if_exists=resume" if hasattr(config, "if_exists") else "")
    try:
        return COMMANDS[command](config)
    except UserError:
        raise
    except Exception as error:
        refused = user_error_of(error, output=output, how_to_go_on=again)
        if refused is None:
            raise
        raise refused from error
