"""From Hydra's composed node to the dataclass of a command, raising all complaints at once.

Rooms below the door never see these objects; they take plain values.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bert_lamb.config import squad
from bert_lamb.config.checks import Complaints
from bert_lamb.config.corpus import DemoDataConfig, MergeConfig, PrepareConfig, VocabConfig, check_corpus, check_prepare
from bert_lamb.config.doctor import MAY_BE_MISSING, DoctorConfig, check_doctor
from bert_lamb.config.evaluate import EvaluateConfig, check_evaluate
from bert_lamb.config.finite import not_finite
from bert_lamb.config.glue import GlueConfig, check_glue
from bert_lamb.config.model_import import ImportConfig
from bert_lamb.config.optimizer import CLASSES as OPTIMIZERS
from bert_lamb.config.paths import settle_texts
from bert_lamb.config.plan import PlanConfig, check_plan
from bert_lamb.config.pretrain import PretrainConfig, check_pretrain
from bert_lamb.config.results import BatchConfig, ExportConfig, PushConfig, ReportConfig, check_batch
from bert_lamb.config.shards import InspectConfig, VerifyConfig, check_inspect
from bert_lamb.config.squad import AskConfig, ScoreConfig, SquadConfig, check_ask, check_score, check_squad
from bert_lamb.config.study import StudyConfig, check_study
from bert_lamb.config.vision import VisionConfig, check_vision
from bert_lamb.errors import UserError, UserErrors

SCHEMAS: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "merge": MergeConfig,
    "vocab": VocabConfig,
    "verify": VerifyConfig,
    "inspect": InspectConfig,
    "demo-data": DemoDataConfig,
    "pretrain": PretrainConfig,
    "doctor": DoctorConfig,
    "plan": PlanConfig,
    "batch": BatchConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "push": PushConfig,
    "import": ImportConfig,
    "squad": SquadConfig,
    "ask": AskConfig,
    "score": ScoreConfig,
    "glue": GlueConfig,
    "vision": VisionConfig,
    "report": ReportConfig,
    "study": StudyConfig,
}

RENAMED = {"squad": squad.RENAMED}  # command -> old key -> new key


def renamed_keys(command: str, words: Iterable[str]) -> list[UserError]:
    """A complaint for every override whose key has another name by now."""
    renamed = RENAMED.get(command, {})
    keys = {word: word.partition("=")[0].lstrip("+~") for word in words}
    return [
        UserError(found=f"{key} in {word}", expected=f"{renamed[key]}, its present name", fix="use the new name")
        for word, key in keys.items()
        if key in renamed
    ]


def new_name_of(command: str, message: str) -> str | None:
    """What a key is called now that a message of Hydra says is no field, as in a yaml file of one's own."""
    for old, new in RENAMED.get(command, {}).items():
        if f"Key '{old}'" in message:
            return f"{old} is called {new} now"
    return None


@cache
def register_schemas() -> None:
    """Make the dataclasses known to Hydra as `schema/<command>` and `schema/optimizer/<name>`."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for command, schema in SCHEMAS.items():
        store.store(group="schema", name=command, node=schema)
    for name, optimizer in OPTIMIZERS.items():
        store.store(group="schema/optimizer", name=name, node=optimizer)


def to_typed(command: str, node: DictConfig) -> Any:
    """The composed configuration as the command's dataclass; raises UserErrors with every complaint at once.

    A leading ~ in a path is the home folder here and below.
    """
    unknown = list(_unknown_keys(node, SCHEMAS[command]))
    if unknown:
        raise UserErrors(unknown)
    for name in MAY_BE_MISSING if command in ("doctor", "plan") else ():
        if OmegaConf.is_missing(node, name):
            node[name] = None
    missing = _missing_keys(OmegaConf.to_container(node, resolve=False))
    if missing:
        raise UserErrors(
            [
                UserError(
                    found=f"no value for {key}", expected="one", fix=f"add {key}=... to the command line or a recipe"
                )
                for key in missing
            ]
        )
    try:
        config = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise UserError(
            found=f"configuration {str(error).splitlines()[0]}",
            expected=f"the schema of `{command}`",
            fix=f"see bert-lamb {command} --cfg job",
        ) from error
    if other_kinds := list(_of_other_kinds(config, SCHEMAS[command])):
        raise UserErrors(other_kinds)
    complaints = settle_texts(config) + (not_finite(config) or CHECKS[command](config))
    if complaints:
        raise UserErrors(complaints)
    return config


def _unknown_keys(node: Any, schema: type[Any], prefix: str = "") -> Iterator[UserError]:
    """Keys that +key=value has put beside the fields of a dataclass, where nobody would read them."""
    for name in node:
        child = None if OmegaConf.is_missing(node, name) else node._get_node(name)
        if is_dataclass(schema) and name not in schema.__dataclass_fields__:
            near = difflib.get_close_matches(str(name), schema.__dataclass_fields__)
            yield UserError(
                found=f"{prefix}{name}, which is not a field",
                expected=f"one of {', '.join(near or schema.__dataclass_fields__)}",
                fix=f"set one of them instead of {prefix}{name}",
            )
        elif isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _unknown_keys(child, OmegaConf.get_type(child) or dict, f"{prefix}{name}.")


def _of_other_kinds(value: Any, hint: Any, key: str = "") -> Iterator[UserError]:
    """What an interpolation has put in the place of a group of keys or a list; OmegaConf looks at single values."""
    kind: Any = hint if is_dataclass(hint) else get_origin(hint)
    if kind in (dict, list) or is_dataclass(kind):
        if not isinstance(value, kind):
            yield UserError(
                found=f"{key}={value}", expected="a list" if kind is list else "keys below it", fix=f"set {key}"
            )
        elif kind is dict:
            for name, below in value.items():
                yield from _of_other_kinds(below, get_args(hint)[1], f"{key}.{name}")
        elif kind is not list:
            for name, below in get_type_hints(type(value)).items():
                yield from _of_other_kinds(getattr(value, name), below, f"{key}.{name}".lstrip("."))


def _missing_keys(tree: object, prefix: str = "") -> list[str]:
    """Dotted keys without a value; unlike OmegaConf's, it does not stumble over interpolations of such keys."""
    if isinstance(tree, dict):
        return [key for name, value in tree.items() for key in _missing_keys(value, f"{prefix}{name}.")]
    return [prefix[:-1]] if tree == MISSING else []


def no_checks(config: object) -> Complaints:
    return Complaints()


CHECKS: dict[str, Any] = {
    "prepare": check_prepare,
    "merge": check_corpus,
    "vocab": check_corpus,
    "verify": no_checks,
    "inspect": check_inspect,
    "demo-data": no_checks,
    "pretrain": check_pretrain,
    "doctor": check_doctor,
    "plan": check_plan,
    "batch": check_batch,
    "evaluate": check_evaluate,
    "export": no_checks,
    "push": no_checks,
    "import": no_checks,
    "squad": check_squad,
    "ask": check_ask,
    "score": check_score,
    "glue": check_glue,
    "vision": check_vision,
    "report": no_checks,
    "study": check_study,
}
