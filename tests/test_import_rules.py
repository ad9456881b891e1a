"""Who may import whom, held against the files themselves with `ast`: the table of the README's map of rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import CHECKOUT

OURS = {"bert_lamb", "data_prep"}
STDLIB = set(sys.stdlib_module_names)
FOUNDATION = {"bert_lamb.errors", "bert_lamb.progress"}  # every room may use these two

# room (file or folder): (other packages it may import, rooms of ours it may import)
RULES = {
    "bert_lamb/shards": ({"numpy", "pyarrow"}, {"bert_lamb.shards"}),
    "bert_lamb/errors.py": (set(), set()),
    "bert_lamb/progress.py": ({"tqdm"}, set()),
    "bert_lamb/stop.py": (set(), set()),
    "bert_lamb/streams.py": (set(), set()),
    "bert_lamb/ranks.py": (set(), {"bert_lamb.engine.place", "bert_lamb.engine.agreement", "bert_lamb.engine.launch"}),
    "bert_lamb/engine/place.py": (set(), set()),
    "bert_lamb/schedule.py": (set(), set()),
    "bert_lamb/batch_plan.py": (set(), set()),
    "bert_lamb/squad/scoring.py": (set(), set()),
    "bert_lamb/config.py": ({"omegaconf", "hydra"}, {"bert_lamb.paths", "bert_lamb.finite"}),
    "bert_lamb/finite.py": (set(), set()),
    "bert_lamb/system_errors.py": (set(), set()),
    "bert_lamb/paths.py": (set(), set()),
    "bert_lamb/overrides.py": ({"omegaconf", "hydra"}, set()),
    "bert_lamb/yaml_texts.py": ({"omegaconf", "hydra", "yaml"}, {"bert_lamb.overrides"}),
    "bert_lamb/run_dir.py": (set(), set()),
    "bert_lamb/tracker.py": ({"wandb"}, set()),
    "bert_lamb/optim": ({"torch", "triton"}, {"bert_lamb.optim"}),
    "bert_lamb/data": ({"numpy", "torch"}, {"bert_lamb.data", "bert_lamb.shards"}),
    "bert_lamb/model": ({"torch", "transformers"}, {"bert_lamb.model"}),
    "bert_lamb/squad": (
        {"torch", "transformers", "tokenizers", "numpy", "safetensors", "regex"},
        {"bert_lamb", "bert_lamb.squad", "bert_lamb.config", "bert_lamb.run_dir"},
    ),
    "bert_lamb/engine": (
        {"torch", "deepspeed", "safetensors"},
        {"bert_lamb.engine", "bert_lamb.optim", "bert_lamb.batch_plan"},
    ),
    "bert_lamb/report": ({"matplotlib", "jinja2", "markupsafe", "numpy"}, {"bert_lamb.report", "bert_lamb.run_dir"}),
    "data_prep/sources": ({"datasets", "pyarrow"}, {"data_prep.sources"}),
    "data_prep/documents": (
        {"tokenizers", "numpy", "pyarrow", "sentencex", "mwparserfromhell", "markdown_it", "datasketch"},
        {
            "data_prep.documents",
            "data_prep.sources",
            "data_prep.plan",
            "data_prep.pool",
            "data_prep.settings",
            "data_prep.output_dir",
            "data_prep.workspace",
            "bert_lamb.shards",
        },
    ),
    "data_prep/instances": (
        {"numpy"},
        {
            "data_prep.instances",
            "data_prep.documents",
            "data_prep.pool",
            "data_prep.settings",
            "data_prep.output_dir",
            "data_prep.workspace",
            "bert_lamb.shards",
        },
    ),
    "data_prep/card": ({"numpy", "yaml", "matplotlib"}, {"data_prep.card", "bert_lamb.shards"}),
    "data_prep/workspace.py": (set(), {"bert_lamb.shards", "data_prep.settings", "data_prep.output_dir"}),
    "data_prep/demo": (set(), {"data_prep.demo", "data_prep.output_dir"}),
    "data_prep": (
        {
            "datasets",
            "tokenizers",
            "numpy",
            "pyarrow",
            "sentencex",
            "mwparserfromhell",
            "markdown_it",
            "datasketch",
            "matplotlib",
            "yaml",
        },
        {"data_prep", "bert_lamb.shards"},
    ),
}
LAZY = {"deepspeed", "triton", "wandb", "datasets", "datasketch"}  # imported inside functions only
LAZY_IN_ROOM = {
    "data_prep": {"matplotlib"},
    "data_prep/card": {"matplotlib"},
}  # workers of the pool import the room, and draw nothing
KERNELS = "fused_kernels.py"  # Triton reads kernels at the top of a file; the file is imported inside a function
LOOP = ["bert_lamb/pretrain.py", "bert_lamb/export.py"]


def files_of(room):
    path = CHECKOUT / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def imports(path):
    """(dotted module, is inside a function) of every import in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, id(node) in inside


@pytest.mark.parametrize("room", RULES)
def test_room_imports_only_what_it_may(room):
    packages, rooms = RULES[room]
    assert files_of(room), room
    for path in files_of(room):
        for module, is_lazy in imports(path):
            root = module.split(".")[0]
            if root in OURS:
                allowed = rooms | FOUNDATION
                is_allowed = any(module == name or module.startswith(name + ".") for name in allowed - {"bert_lamb"})
                assert is_allowed or (module == "bert_lamb" and "bert_lamb" in rooms), f"{path}: {module}"
            elif root not in STDLIB:
                assert root in packages, f"{path}: {module}"
                is_lazy = is_lazy or (root == "triton" and path.name == KERNELS)
                is_free = root not in LAZY | LAZY_IN_ROOM.get(room, set())
                assert is_lazy or is_free, f"{path}: {module} must be imported inside a function"


@pytest.mark.parametrize("file", LOOP)
def test_the_loop_never_sees_preparation(file):
    assert not [module for module, _ in imports(CHECKOUT / file) if module.split(".")[0] == "data_prep"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bert_lamb.cli", ("torch", "transformers", "hydra", "deepspeed", "numpy")),
        ("bert_lamb.optim", ("deepspeed", "triton", "transformers", "omegaconf", "torch.distributed.tensor")),
    ],
)
def test_importing_a_room_is_light(module, heavy):
    """The command line brings neither torch nor hydra, the optimizers nothing but torch."""
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home())
    assert found.stdout.strip() == "[]"
