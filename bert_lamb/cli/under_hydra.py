"""Calls with Hydra's own flags, sweeps and launchers: hydra.main knows them all."""

import os
import platform
import sys
from pathlib import Path
from typing import NoReturn

from bert_lamb.cli import faults
from bert_lamb.cli.compose import OF_HYDRA, compose_node, conf_dir, does_not_compose
from bert_lamb.cli.faults import EXIT_CHECK_FAILED, EXIT_USER_ERROR
from bert_lamb.cli.run import run
from bert_lamb.cli.system_errors import user_error_of
from bert_lamb.errors import UserError, UserErrors


class CheckFailed(Exception):
    """A command of a sweep found what it checks unsound, and has said so; carries that across processes."""


def run_under_hydra(command: str, arguments: list[str]) -> int:
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

    from bert_lamb.cli.overrides import make_ready, without_ours
    from bert_lamb.cli.yaml_texts import check_own_files
    from bert_lamb.config import door

    door.register_schemas()
    try:
        if renamed := door.renamed_keys(command, arguments):
            raise UserErrors(renamed)
        words = make_ready(door.SCHEMAS[command], arguments)
        _check_flags(command, words)
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
            if command == "study":
                task = without_ours(HydraConfig.get().overrides.task)
                typed_config.study.words = [word for word in task if not word.startswith("spread=")]
            status = run(command, typed_config)
        except Exception as error:
            statuses.append(faults.fail(command, error))
            reported.append(str(error))
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
        statuses.append(EXIT_USER_ERROR if str(error) in reported else faults.fail(command, error))
    except CheckFailed:
        statuses.append(EXIT_CHECK_FAILED)
    except (HydraException, OmegaConfBaseException) as error:
        _check_launcher(command, words)
        raise does_not_compose(command, error) from error
    except OSError as error:  # of Hydra's own files, such as multirun.yaml
        refused = user_error_of(error, output=None, how_to_go_on="run it again")
        if refused is None:
            raise
        raise refused from error
    except (YAMLError, *OF_HYDRA) as error:  # of a file of --config-dir, or of words
        if is_composed:
            raise
        raise does_not_compose(command, error) from error
    except SystemExit as stop:
        if stop.code == 1:  # how Hydra reports what it refuses
            return EXIT_USER_ERROR
        raise
    return max(statuses)


def _check_flags(command: str, words: list[str]) -> None:
    """UserError for flags that Hydra's parser refuses, with its usage over several lines."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(found=message, expected="Hydra's flags", fix=f"see bert-lamb {command} --hydra-help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(words)


def _check_launcher(command: str, words: list[str]) -> None:
    """UserError where what chooses the launcher does not compose by itself.

    Without the launcher Hydra takes the call for a single job, and complains of the first value with a comma.
    """
    of_launcher = [word for word in words if word.startswith(("spread=", "hydra/launcher="))]
    if of_launcher:
        compose_node(command, of_launcher)


def _go_to(directory: Path) -> None:
    """Work where the command was called, so that relative paths mean the same in every job of a launcher."""
    if not directory.is_dir():
        raise UserError(
            found=f"no folder {directory} on {platform.node()}",
            expected="the folder in which bert-lamb was called, on every machine",
            fix="call it in a folder of a file system that all machines share",
        )
    os.chdir(directory)
