"""`bert-lamb <command> [overrides]`: find conf/, let Hydra compose it, hand the typed configuration to the command.

A plain call composes with Hydra's Compose API, so that every complaint is a line and exit status 2. Calls with one of
Hydra's own flags (--cfg, --help, --info, -m, --shell-completion ...), and those that choose a launcher, go through
hydra.main, which knows them all.
"""

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bert_lamb import __version__
from bert_lamb.cli import ranks
from bert_lamb.cli.streams import patient_streams
from bert_lamb.cli.system_errors import user_error_of
from bert_lamb.engine.place import rank_label
from bert_lamb.errors import UserError, UserErrors
from bert_lamb.train.stop import stop_on_signals

SUMMARIES = {
    "demo-data": "fetch the embedded default corpus and make its question-answering set",
    "prepare": "raw text -> shards for every sequence length, and their manifest",
    "merge": "what `prepare share=I/N` left on one or many machines -> shards and manifest",
    "vocab": "train a WordPiece vocabulary on a corpus",
    "verify": "check every hash, count and invariant of prepared shards",
    "inspect": "show instances of prepared shards as text",
    "pretrain": "shards -> checkpoints, phase after phase (also under torchrun, deepspeed, srun)",
    "export": "a checkpoint -> a folder that transformers loads",
    "squad": "fine-tune, predict and score extractive question answering (also under torchrun, deepspeed, srun)",
    "report": "report.json and report.html of a run",
}
ON_RANKS = ("pretrain", "squad")  # that several ranks may run together, which signals stop between steps
# Words of calls whose result is what they print; the others leave files, and print what they did.
PRINT_THEIR_RESULT = {"inspect", "verify", "--version", "-h", "--help", "-c", "--cfg", "-i", "--info", "-sc"}
PRINT_THEIR_RESULT |= {"--hydra-help", "--shell-completion"}
EXIT_USER_ERROR = 2
EXIT_CHECK_FAILED = 1
EXIT_DEFECT = 1
# A plain call has no launcher: what chooses or sets one goes where it is heeded.
MARKS_OF_HYDRA = ("-", "hydra.", "hydra/", "+hydra.", "++hydra.", "spread=")


class CheckFailed(Exception):
    """A command of a sweep found what it checks unsound, and has said so; carries that across processes."""


def conf_dir() -> Path:
    """Where conf/ lies: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed, checkout = package / "conf", package.parent / "conf"
    return installed if installed.is_dir() else checkout


def usage() -> str:
    width = max(map(len, SUMMARIES))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in SUMMARIES.items())
    return (
        "usage: bert-lamb <command> [key=value ...] [Hydra flags]\n\n"
        f"commands:\n{commands}\n\n"
        "bert-lamb <command> --help lists the configuration of a command, --cfg job prints it composed,\n"
        "-m sweeps over comma-separated values. bert-lamb --version prints the version.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status (0 done, 1 a check failed, 2 a mistake to fix)."""
    # The deepspeed launcher adds --local_rank=N; the rank is read from the environment that it also sets.
    given = sys.argv[1:] if argv is None else argv
    arguments = [word for word in given if not word.startswith("--local_rank")]
    # Signals are heard before anything heavy is imported: one that comes early must not end a run that can be resumed.
    with (
        patient_streams() as output,
        stop_on_signals() if arguments[:1] and arguments[0] in ON_RANKS else nullcontext(),
    ):
        try:
            status = _main(arguments)
        except SystemExit:  # a signal upon which all ranks have agreed
            ranks.leave_with_the_others()
            raise
        ranks.leave_with_the_others()
        output.flush()
        is_result_printed = not arguments or any(word.split("=")[0] in PRINT_THEIR_RESULT for word in arguments)
        if status == 0 and output.is_full and is_result_printed:
            said = " ".join(["bert-lamb", *arguments[:1]])
            print(f"{said}: no room on the disk under standard output; it is cut short", file=sys.stderr)
            return EXIT_USER_ERROR
        return status


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if arguments[0] == "--version":
        print(f"bert-lamb {__version__}")
        return 0
    command, overrides = arguments[0], arguments[1:]
    try:
        _check_working_folder()
        if command in ("-sc", "--shell-completion"):
            return _complete(command, overrides)
        if command not in SUMMARIES:
            raise UserError(
                found=f"command {command!r}", expected=f"one of {', '.join(SUMMARIES)}", fix="see bert-lamb --help"
            ).reported_by("machine")
        if any(word.startswith(MARKS_OF_HYDRA) for word in overrides):
            return _run_under_hydra(command, overrides)
        return _compose_and_run(command, overrides)
    except UserError as error:
        status = _report(command, error)
        return status if error.reporter == "rank 0" else ranks.leave_alone(status)
    except KeyboardInterrupt:
        print(f"bert-lamb {command}: interrupted", file=sys.stderr)
        return 130
    except Exception:
        if not rank_label():
            raise
        ranks.print_traceback()
        return ranks.leave_alone(EXIT_DEFECT)


def compose(command: str, overrides: Sequence[str]):  # type: ignore[no-untyped-def]
    """The typed configuration of `command` with `overrides`; raises UserError for what Hydra or the checks refuse."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from bert_lamb.cli.overrides import make_ready
    from bert_lamb.config import door

    door.register_schemas()
    if renamed := door.renamed_keys(command, overrides):
        raise UserErrors(renamed)
    words = make_ready(door.SCHEMAS[command], overrides)
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            node = hydra.compose(config_name=command, overrides=words)
    except (HydraException, OmegaConfBaseException) as error:
        raise _does_not_compose(command, error) from error
    return door.to_typed(command, node)


def _does_not_compose(command: str, error: Exception) -> UserError:
    reason = " ".join(line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip())
    from bert_lamb.config import door

    fix = door.new_name_of(command, reason) or f"see bert-lamb {command} --help"
    if "hydra/launcher/" in reason:
        fix = "install the extra: bert-lamb[slurm] or bert-lamb[ray]"
    return UserError(
        found=f"configuration that does not compose ({reason})",
        expected="keys, types and group options of the schema",
        fix=fix,
    ).reported_by("machine")


def _report(command: str, error: UserError) -> int:
    """Print each complaint on a line, unless another rank does."""
    if command not in ON_RANKS or ranks.is_reporter(error):  # tasks of other commands do not know of each other
        for line in str(error).splitlines():
            print(f"bert-lamb {command}: {ranks.label_for(error)}{line}", file=sys.stderr, flush=True)
    return EXIT_USER_ERROR


def _compose_and_run(command: str, overrides: Sequence[str]) -> int:
    try:
        config = compose(command, overrides)
    except UserError as error:
        error.reported_by("machine")  # every rank has the same command line
        raise
    return _run(command, config)


def _run(command: str, config: Any) -> int:
    """The command's exit status; what the system refuses it, such as a full disk, is a UserError."""
    from bert_lamb.cli.commands import COMMANDS, OUTPUTS

    output = next((Path(getattr(config, name)) for name in OUTPUTS if hasattr(config, name)), None)
    again = "call it again" + (" with if_exists=resume" if hasattr(config, "if_exists") else "")
    try:
        return COMMANDS[command](config)
    except UserError:
        raise
    except Exception as error:
        refused = user_error_of(error, output=output, how_to_go_on=again)
        if refused is None:
            raise
        raise refused from error


def _run_under_hydra(command: str, arguments: list[str]) -> int:
    """Let hydra.main handle its own flags; sweeps end up in the same command functions.

    A launcher may pickle `job` and call it in another process, on another machine. From there only an exception comes
    back: Hydra raises that of the first job that failed, after all have ended.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import env_override
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from bert_lamb.cli.overrides import make_ready
    from bert_lamb.cli.yaml_texts import check_own_files
    from bert_lamb.config import door

    door.register_schemas()
    try:
        if renamed := door.renamed_keys(command, arguments):
            raise UserErrors(renamed)
        words = make_ready(door.SCHEMAS[command], arguments)
    except UserError as error:
        error.reported_by("machine")
        raise
    is_composed = False
    typed = [f"bert-lamb {command}", *arguments]
    statuses, reported = [0], [""]  # of the jobs in this process

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)
    def job(node: DictConfig) -> None:
        nonlocal is_composed
        is_composed = True
        sys.argv = typed  # what versions.json records
        try:
            try:
                _go_to(Path(HydraConfig.get().runtime.cwd))
                check_own_files(door.SCHEMAS[command], command, ours=conf_dir())
                typed_config = door.to_typed(command, node)
            except UserError as error:
                error.reported_by("machine")  # every rank has the same command line and files
                raise
            status = _run(command, typed_config)
        except UserError as error:
            statuses.append(_report(command, error))
            reported.append(str(error))
            if error.reporter != "rank 0":  # other ranks may wait in a collective, and would meet those of the next job
                ranks.leave_alone(EXIT_USER_ERROR)
            raise
        except Exception:
            if rank_label():
                ranks.print_traceback()
                ranks.leave_alone(EXIT_DEFECT)
            raise
        if status:
            statuses.append(status)
            raise CheckFailed

    sys.argv = [f"bert-lamb {command}", *words]
    os.environ.setdefault("HYDRA_MAIN_MODULE", "bert_lamb.cli.main")
    try:
        with env_override({"HYDRA_FULL_ERROR": "1"}):  # let exceptions out instead of printing them
            job()
    except UserError as error:
        statuses.append(EXIT_USER_ERROR if str(error) in reported else _report(command, error))
    except CheckFailed:
        statuses.append(EXIT_CHECK_FAILED)
    except (HydraException, OmegaConfBaseException) as error:
        raise _does_not_compose(command, error) from error
    except OSError as error:  # of Hydra's own files, such as multirun.yaml
        refused = user_error_of(error, output=None, how_to_go_on="call it again")
        if refused is None:
            raise
        raise refused from error
    except (YAMLError, UnicodeDecodeError) as error:  # of a file of --config-dir
        if is_composed:
            raise
        raise _does_not_compose(command, error) from error
    except SystemExit as stop:
        if stop.code == 1:  # how Hydra reports what it refuses
            return EXIT_USER_ERROR
        raise
    return max(statuses)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        refused = UserError(
            found="a working folder that was deleted", expected="one that is there", fix="cd into another"
        )
        raise refused.reported_by("machine") from error


def _go_to(directory: Path) -> None:
    """Work where the command was called, so that relative paths mean the same in every job of a launcher."""
    if not directory.is_dir():
        raise UserError(
            found=f"no folder {directory} on {platform.node()}",
            expected="the folder in which bert-lamb was called, on every machine",
            fix="call it in a folder of a file system that all machines share",
        )
    os.chdir(directory)


def _complete(flag: str, arguments: list[str]) -> int:
    """Shell completion: the first word completes to a command, the rest is Hydra's (`bert-lamb -sc install=bash`)."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    is_query = any("query" in word for word in arguments)
    if not is_query:
        return _run_under_hydra("pretrain", [flag, *arguments])
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        typed = words[1] if len(words) == 2 else ""
        print("\n".join(name for name in SUMMARIES if name.startswith(typed)))
        return 0
    if words[1] not in SUMMARIES:
        return 0
    rest = line.split(words[1], 1)[1].lstrip()
    os.environ["COMP_LINE"] = f"bert-lamb {rest}"
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return _run_under_hydra(words[1], [flag, *arguments])


if __name__ == "__main__":
    sys.exit(main())
