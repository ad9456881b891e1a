"""From a command and its overrides to its typed configuration, by Hydra's Compose API: every complaint is a line."""

from collections.abc import Sequence
from pathlib import Path

from bert_lamb.errors import UserError, UserErrors

# What Hydra raises besides its own exceptions where its grammar lets through what it cannot use: `+=`, model=true.
OF_HYDRA = (AssertionError, AttributeError, KeyError, RecursionError, TypeError, ValueError)


def conf_dir() -> Path:
    """Where conf/ lies: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed, checkout = package / "conf", package.parent / "conf"
    return installed if installed.is_dir() else checkout


def compose(command: str, overrides: Sequence[str]):  # type: ignore[no-untyped-def]
    """The typed configuration of `command` with `overrides`; raises UserError for what Hydra or the checks refuse."""
    from bert_lamb.cli.overrides import make_ready
    from bert_lamb.config import door

    door.register_schemas()
    if renamed := door.renamed_keys(command, overrides):
        raise UserErrors(renamed)
    return door.to_typed(command, compose_node(command, make_ready(door.SCHEMAS[command], overrides)))


def compose_node(command: str, words: Sequence[str]):  # type: ignore[no-untyped-def]
    """What Hydra composes of words that are ready for it; raises UserError for what it refuses."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            return hydra.compose(config_name=command, overrides=list(words))
    except (HydraException, OmegaConfBaseException, OSError, *OF_HYDRA) as error:  # OSError: a name too long for a file
        raise does_not_compose(command, error) from error


def does_not_compose(command: str, error: Exception) -> UserError:
    """What an exception of Hydra's or OmegaConf's says, as found, expected and fix."""
    reason = " ".join(line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip())
    reason = reason or type(error).__name__
    from bert_lamb.config import door

    fix = door.new_name_of(command, reason) or f"see bert-lamb {command} --help"
    if "hydra/launcher/" in reason:
        fix = "install the extra: bert-lamb[slurm] or bert-lamb[ray]"
    return UserError(
        found=f"configuration that does not compose ({reason})",
        expected="keys, types and group options of the schema",
        fix=fix,
    ).reported_by("machine")
