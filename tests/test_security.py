"""What SECURITY.md promises of files and configuration, held against the syntax tree of every file of ours.

`dangers` walks a tree, so that a comment, a docstring or `model.eval()` is no finding; the snippets below show that it
sees what it is for. Breaks of the code itself are in mutations.txt.
"""

import ast
from collections.abc import Iterator

import pytest
import yaml
from omegaconf import OmegaConf

from bert_lamb.cli.compose import compose, conf_dir
from bert_lamb.errors import UserError
from tests.launch import CHECKOUT

FILES = sorted(path for folder in ("bert_lamb", "data_prep", "scripts") for path in (CHECKOUT / folder).rglob("*.py"))
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
# The one file that names pickle, for the exception that torch.load raises; file: what it may use of it.
MAY_NAME_PICKLE = {"bert_lamb/checkpoint/folder/stored.py": {"UnpicklingError"}}
BUILTINS = {"eval", "exec", "compile", "__import__"}
NEVER = {  # functions that run what they are given, by the end of their dotted names
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.full_load_all",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
    "torch.save",
    "torch.package.PackageImporter",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "hydra.utils.get_method",
    "OmegaConf.register_new_resolver",
    "OmegaConf.register_resolver",
}
LAST_NAMES = {"register_new_resolver", "register_resolver", "unsafe_load", "full_load", "read_pickle", "to_pickle"}


def dangers(source: str, file: str = "") -> list[str]:
    """Line and reason of everything in a file that could run what it reads."""
    tree = ast.parse(source)
    names = full_names(tree)
    return [f"{file}:{node.lineno} {reason}" for node in ast.walk(tree) for reason in reasons(node, names, file)]


def full_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: np -> numpy, load -> torch.load."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def reasons(node: ast.AST, names: dict[str, str], file: str) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            if module.split(".")[0] in PICKLES and not (isinstance(node, ast.Import) and file in MAY_NAME_PICKLE):
                yield f"imports {module}"
    is_of_pickle = isinstance(node, ast.Attribute) and dotted(node.value, names) == "pickle"
    if is_of_pickle and node.attr not in MAY_NAME_PICKLE.get(file, set()):
        yield f"uses pickle.{node.attr}"
    if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
        yield "names trust_remote_code"
    if isinstance(node, ast.Attribute | ast.Name):
        name = dotted(node, names)
        is_builtin = isinstance(node, ast.Name) and name in BUILTINS - {"compile"}  # which parameters here are called
        if is_builtin or any(name == one or name.endswith(f".{one}") for one in NEVER) or last(name) in LAST_NAMES:
            yield f"uses {name}"
    if isinstance(node, ast.Call):
        yield from of_call(dotted(node.func, names), node)


def last(name: str) -> str:
    return name.split(".")[-1]


def of_call(name: str, node: ast.Call) -> Iterator[str]:
    given = {keyword.arg: keyword.value for keyword in node.keywords}

    def is_constant(keyword: str, value: object) -> bool:
        return isinstance(given.get(keyword), ast.Constant) and given[keyword].value is value

    if name == "compile":
        yield "calls compile"
    if name == "torch.load" and not is_constant("weights_only", True):
        yield "torch.load without weights_only=True"
    if name == "yaml.compose" and "Loader" in given and not ast.unparse(given["Loader"]).endswith("SafeLoader"):
        yield "yaml.compose with another loader"
    if "allow_pickle" in given and not is_constant("allow_pickle", False):
        yield "allow_pickle"
    if "trust_remote_code" in given and not is_constant("trust_remote_code", False):
        yield "trust_remote_code"
    if "shell" in given and not is_constant("shell", False):
        yield "a shell"
    if name.endswith("import_module") and not isinstance(node.args[0], ast.Constant):
        yield "imports a module whose name is a value"
    if name.endswith("safe_globals") and ast.unparse(node.args[0]) != "[argparse.Namespace]":
        yield "lets a file hold more than arguments"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_file_runs_what_it_reads(path):
    assert dangers(path.read_text(), str(path.relative_to(CHECKOUT))) == []


@pytest.mark.parametrize(
    "snippet",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as c",
        "eval('1')",
        "list(map(eval, texts))",
        "import yaml\nread(file, yaml.unsafe_load)",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "__import__(name)",
        "import torch\ntorch.load(file)",
        "import torch\ntorch.load(file, weights_only=False)",
        "from torch import load\nload(file)",
        "import torch as t\nt.load(file, weights_only=flag)",
        "import torch\ntorch.save(x, f)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "import yaml\nyaml.compose(text, Loader=yaml.UnsafeLoader)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "load(folder, **{'trust_remote_code': True})",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import os\nos.system(text)",
        "from hydra.utils import instantiate\ninstantiate(node)",
        "import hydra\nhydra.utils.instantiate(node)",
        "from omegaconf import OmegaConf\nOmegaConf.register_new_resolver('eval', f)",
        "import importlib\nimportlib.import_module(config.name)",
        "import torch\ntorch.serialization.safe_globals([Anything])",
        "import pandas\npandas.read_pickle(file)",
    ],
)
def test_the_walk_sees(snippet):
    assert dangers(snippet)


@pytest.mark.parametrize(
    "snippet",
    [
        "model.eval()",
        "layer.compile(dynamic=True)",
        "# eval(x)\n'yaml.load(x)'",
        "import torch\ntorch.load(f, weights_only=True)",
        "import yaml\nyaml.safe_load(text)",
        "import re\nre.compile('x')",
        "import ast\nast.literal_eval(text)",
        "import numpy as np\nnp.load(f)",
    ],
)
def test_the_walk_leaves_alone(snippet):
    assert dangers(snippet) == []


def test_the_one_file_that_names_pickle_only_catches_its_exception():
    (file,) = MAY_NAME_PICKLE
    assert dangers("import pickle\npickle.loads(x)", file)
    assert not dangers("import pickle\npickle.UnpicklingError", file)


def keys_of(tree) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield str(name)
            yield from keys_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from keys_of(value)


def test_no_configuration_of_ours_names_something_to_call():
    paths = sorted(conf_dir().rglob("*.yaml"))
    assert len(paths) > 30
    for path in paths:
        assert not {key for key in keys_of(yaml.safe_load(path.read_text())) if key.startswith("_target_")}, path


@pytest.mark.parametrize("key", ["model", "optimizer", "runtime", "masking", "tracker", "phases.phase1"])
def test_a_target_in_a_key_of_ours_is_refused(tmp_path, key):
    with pytest.raises(UserError, match="_target_"):
        compose("pretrain", ["recipe=demo", "shards=s", f"run_dir={tmp_path}", f"+{key}._target_=os.system"])


def test_an_expression_in_a_value_stays_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["recipe=demo", "shards=s", "run_dir=__import__('os').mkdir('made')"]
    assert compose("pretrain", words).run_dir.startswith("__import__")
    with pytest.raises(UserError):
        compose("pretrain", ["recipe=demo", "shards=s", "run_dir=${eval:'1 + 1'}"])
    assert list(tmp_path.iterdir()) == []


def test_yaml_of_a_users_own_makes_no_objects(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(yaml.YAMLError):
        OmegaConf.load(file)
    assert not (tmp_path / "made").exists()
