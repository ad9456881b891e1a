"""Who may import whom, held against the files themselves with `ast`: every file has a rule, and there is no circle.

Imports inside functions count as well. `python -m tests.import_graph` draws the graph.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_graph import PACKAGES, circles, edges, files
from tests.launch import CHECKOUT

STDLIB = set(sys.stdlib_module_names)
FOUNDATION = {"bert_lamb.errors", "bert_lamb.progress"}  # every room may use these two
CONTRACT = {"bert_lamb.shards", "bert_lamb.outputs"}  # what preparation may know of the trainer
RUNNING = {f"bert_lamb.{room}" for room in ("train", "model", "optim", "engine", "checkpoint", "outputs", "sampling")}

PLANNING = {  # what the planner takes of other rooms: formulas, none of which needs torch
    "bert_lamb.engine.settings",
    "bert_lamb.engine.state_size",
    "bert_lamb.model.activations",
    "bert_lamb.model.flops",
    "bert_lamb.model.sizes",
    "bert_lamb.outputs",
    "bert_lamb.train.batch_plan",
    "bert_lamb.train.room",
    "bert_lamb.train.settings",
}

# Rule (file or folder; the longest that fits a file is its rule): (other packages, rooms of ours) that it may import.
# A room may always import itself.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "bert_lamb/__init__.py": (set(), set()),
    "bert_lamb/__main__.py": (set(), {"bert_lamb.cli"}),
    "bert_lamb/errors.py": (set(), set()),
    "bert_lamb/progress.py": ({"tqdm"}, set()),
    "bert_lamb/outputs/templates.py": ({"jinja2"}, set()),
    "bert_lamb/outputs": (set(), {"bert_lamb"}),
    "bert_lamb/sampling": ({"numpy"}, set()),
    "bert_lamb/shards": ({"numpy", "pyarrow"}, {"bert_lamb.outputs"}),
    "bert_lamb/config": ({"omegaconf", "hydra"}, set()),
    "bert_lamb/optim": ({"torch", "triton"}, set()),
    "bert_lamb/data": ({"numpy", "torch"}, {"bert_lamb.shards", "bert_lamb.sampling"}),
    "bert_lamb/model": ({"numpy", "torch", "transformers"}, set()),
    "bert_lamb/model/activations.py": (set(), set()),
    "bert_lamb/model/flops.py": (set(), set()),
    "bert_lamb/model/sizes.py": (set(), set()),
    "bert_lamb/engine/place.py": (set(), set()),
    "bert_lamb/engine/settings.py": (set(), set()),
    "bert_lamb/engine/state_size.py": (set(), set()),
    "bert_lamb/engine": ({"torch", "deepspeed"}, {"bert_lamb.optim"}),
    "bert_lamb/checkpoint/export_check.py": ({"torch", "transformers"}, set()),
    "bert_lamb/checkpoint/onnx_file.py": ({"onnxruntime", "torch", "transformers"}, set()),
    "bert_lamb/checkpoint/push.py": ({"huggingface_hub"}, set()),
    "bert_lamb/checkpoint/export_card.py": ({"transformers", "yaml"}, {"bert_lamb.outputs", "bert_lamb.shards"}),
    "bert_lamb/checkpoint/export.py": (
        {"torch", "transformers", "yaml"},
        {"bert_lamb.model.bert", "bert_lamb.outputs"},
    ),
    "bert_lamb/checkpoint/folder": ({"torch", "safetensors", "tokenizers", "transformers"}, set()),
    "bert_lamb/checkpoint/importing/command.py": (
        {"safetensors", "transformers"},
        {"bert_lamb.outputs"},
    ),
    "bert_lamb/checkpoint/importing": ({"numpy", "torch"}, set()),
    "bert_lamb/checkpoint": ({"torch", "safetensors"}, {"bert_lamb.engine", "bert_lamb.outputs"}),
    "bert_lamb/train/schedule.py": (set(), set()),
    "bert_lamb/train/batch_plan.py": (set(), set()),
    "bert_lamb/train/room.py": (set(), set()),
    "bert_lamb/train/stop.py": (set(), set()),
    "bert_lamb/train/tracker.py": ({"torch", "wandb"}, set()),
    "bert_lamb/train": (
        {"torch"},
        {"bert_lamb.engine", "bert_lamb.checkpoint", "bert_lamb.outputs", "bert_lamb.sampling"},
    ),
    "bert_lamb/pretraining/command.py": (
        {"torch", "yaml"},
        RUNNING | {"bert_lamb.data", "bert_lamb.shards", "bert_lamb.config"},
    ),
    "bert_lamb/pretraining/batch.py": ({"yaml", "numpy"}, RUNNING | {"bert_lamb.data", "bert_lamb.shards"}),
    "bert_lamb/pretraining": ({"torch"}, RUNNING | {"bert_lamb.data", "bert_lamb.shards"}),
    "bert_lamb/finetuning/squad/scoring.py": (set(), set()),
    "bert_lamb/finetuning/squad/answers_page.py": (set(), {"bert_lamb.outputs"}),
    "bert_lamb/finetuning/squad/examples.py": (set(), {"bert_lamb.checkpoint.folder.files"}),
    "bert_lamb/finetuning/squad/score_command.py": (set(), {"bert_lamb.checkpoint.folder.files"}),
    "bert_lamb/finetuning/squad/command.py": (
        {"torch"},
        RUNNING | {"bert_lamb.config"},
    ),
    "bert_lamb/finetuning/squad/seeds.py": ({"yaml"}, RUNNING),
    "bert_lamb/finetuning/glue/command.py": ({"yaml"}, RUNNING | {"bert_lamb.config"}),
    "bert_lamb/finetuning/hub.py": ({"datasets"}, set()),
    "bert_lamb/finetuning/glue/metrics.py": ({"sklearn", "scipy"}, set()),
    "bert_lamb/finetuning/running.py": ({"yaml"}, RUNNING),
    "bert_lamb/finetuning": ({"torch", "transformers", "tokenizers", "numpy", "safetensors", "regex"}, RUNNING),
    "bert_lamb/vision/command.py": ({"torch", "yaml"}, RUNNING | {"bert_lamb.config"}),
    "bert_lamb/vision/networks.py": ({"torch", "transformers"}, set()),
    "bert_lamb/vision/images.py": ({"numpy", "PIL", "datasets"}, {"bert_lamb.outputs"}),
    "bert_lamb/vision": ({"torch", "transformers", "numpy", "PIL"}, RUNNING),
    "bert_lamb/doctor/finding.py": (set(), set()),
    "bert_lamb/doctor/report.py": (set(), {"bert_lamb.outputs"}),
    "bert_lamb/doctor/command.py": (
        {"torch"},
        RUNNING | {"bert_lamb.data", "bert_lamb.shards", "bert_lamb.pretraining", "bert_lamb.config"},
    ),
    "bert_lamb/doctor": ({"torch"}, RUNNING | {"bert_lamb.data", "bert_lamb.shards", "bert_lamb.pretraining"}),
    "bert_lamb/planner/command.py": (
        set(),
        PLANNING | {"bert_lamb.config", "bert_lamb.pretraining.scaling", "bert_lamb.shards.manifest"},
    ),
    "bert_lamb/planner/measure.py": (
        {"torch"},
        {"bert_lamb.data", "bert_lamb.engine", "bert_lamb.model", "bert_lamb.train.peak"},
    ),
    "bert_lamb/planner": (set(), PLANNING),
    "bert_lamb/report": ({"matplotlib", "markupsafe", "numpy", "yaml"}, {"bert_lamb.outputs"}),
    "bert_lamb/study/grid.py": (set(), set()),
    "bert_lamb/study/results.py": (set(), {"bert_lamb.outputs.run_dir", "bert_lamb.report.metrics"}),
    "bert_lamb/study/lines.py": (set(), set()),
    "bert_lamb/study/table.py": (set(), set()),
    "bert_lamb/study/figure.py": ({"matplotlib"}, {"bert_lamb.report.curves", "bert_lamb.report.figures"}),
    "bert_lamb/study/cell.py": (
        set(),
        {"bert_lamb.config", "bert_lamb.engine.place", "bert_lamb.outputs", "bert_lamb.pretraining", "bert_lamb.train"},
    ),
    "bert_lamb/study/command.py": (
        {"yaml"},
        {
            *("bert_lamb.config", "bert_lamb.outputs", "bert_lamb.pretraining.scaling", "bert_lamb.shards"),
            "bert_lamb.train.stop",
        },
    ),
    "bert_lamb/study": (
        {"markupsafe", "yaml"},
        {"bert_lamb.config", "bert_lamb.outputs", "bert_lamb.pretraining.scaling", "bert_lamb.train.stop"},
    ),
    "bert_lamb/cli/commands.py": (
        {"torch"},
        {
            f"bert_lamb.{room}"
            for room in ("config", "outputs", "shards", "pretraining", "checkpoint", "finetuning", "report", "doctor")
        }
        | {"bert_lamb.planner", "bert_lamb.study", "bert_lamb.vision", "data_prep"},
    ),
    "bert_lamb/cli": (
        {"omegaconf", "hydra", "yaml", "torch"},
        {"bert_lamb", "bert_lamb.config", "bert_lamb.engine", "bert_lamb.train.stop"},
    ),
    "data_prep/__init__.py": (set(), set()),
    "data_prep/sources": ({"datasets", "pyarrow"}, set()),
    "data_prep/documents": (
        {"tokenizers", "numpy", "pyarrow", "sentencex", "mwparserfromhell", "markdown_it", "datasketch"},
        CONTRACT | {f"data_prep.{room}" for room in ("sources", "plan", "pool", "settings", "workspace")},
    ),
    "data_prep/instances": (
        {"numpy"},
        CONTRACT | {f"data_prep.{room}" for room in ("documents", "pool", "settings", "workspace")},
    ),
    "data_prep/card": ({"numpy", "yaml", "matplotlib"}, CONTRACT),
    "data_prep/demo": (set(), CONTRACT),
    "data_prep/settings.py": (set(), {"data_prep.sources"}),
    "data_prep/plan.py": (set(), {"data_prep.sources"}),
    "data_prep/pool.py": (set(), set()),
    "data_prep/workspace.py": (set(), CONTRACT | {"data_prep.settings"}),
    "data_prep/deviations.py": (
        {"numpy"},
        CONTRACT | {f"data_prep.{room}" for room in ("card", "documents", "instances", "settings")},
    ),
    "data_prep/vocab.py": (
        set(),
        CONTRACT | {f"data_prep.{room}" for room in ("documents", "pool", "prepare", "settings", "workspace")},
    ),
    "data_prep/prepare.py": (
        set(),
        CONTRACT
        | {f"data_prep.{room}" for room in ("sources", "documents", "instances", "card", "deviations")}
        | {f"data_prep.{room}" for room in ("plan", "pool", "settings", "workspace")},
    ),
}
LAZY = {"deepspeed", "triton", "wandb", "datasets", "datasketch", "sklearn", "scipy"}  # imported inside functions only
LAZY_IN_ROOM = {"data_prep/card": {"matplotlib"}}  # workers of the pool may import it, and write no card
KERNELS = "_kernels.py"  # Triton reads kernels at the top of a file; the file is imported inside a function


def rules_of(file: str) -> list[str]:
    return [rule for rule in RULES if file == rule or file.startswith(f"{rule}/")]


def rule_of(file: str) -> str:
    return max(rules_of(file), key=len)


def all_imports(path: Path) -> Iterator[tuple[str, bool]]:
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
            assert node.module is not None
            yield node.module, id(node) in inside


FILES = [str(path.relative_to(CHECKOUT)) for path in files()]


def test_every_file_has_a_rule_and_every_rule_a_file():
    assert [file for file in FILES if not rules_of(file)] == []
    assert RULES.keys() - {rule_of(file) for file in FILES} == set()


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_what_it_may(file):
    rule = rule_of(file)
    packages, rooms = RULES[rule]
    # A rule of a single file stays within the room of that file, and within what the rule says beyond it.
    home = "/".join(Path(file).parts[:2] if Path(file).parts[0] == "bert_lamb" else Path(file).parts[:-1])
    own = home.removesuffix(".py").replace("/", ".")
    allowed = rooms | FOUNDATION | ({own} if own not in PACKAGES else set())
    for module, is_lazy in all_imports(CHECKOUT / file):
        root = module.split(".")[0]
        if root in PACKAGES:
            is_allowed = any(module == name or module.startswith(f"{name}.") for name in allowed - {"bert_lamb"})
            assert is_allowed or (module == "bert_lamb" and "bert_lamb" in rooms), f"{file}: {module}"
        elif root not in STDLIB:
            assert root in packages, f"{file}: {module}"
            is_lazy = is_lazy or (root == "triton" and file.endswith(KERNELS))
            assert is_lazy or root not in LAZY | LAZY_IN_ROOM.get(rule, set()), f"{file}: {module} inside a function"


def test_there_is_no_circle():
    assert circles(edges()) == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bert_lamb", ("torch", "transformers", "hydra", "deepspeed", "numpy")),
        ("bert_lamb.cli.main", ("torch", "transformers", "hydra", "deepspeed", "numpy")),
        ("bert_lamb.optim", ("deepspeed", "triton", "transformers", "omegaconf", "torch.distributed.tensor")),
        ("bert_lamb.finetuning.squad.score_command", ("torch", "numpy")),
        ("bert_lamb.planner.command", ("torch", "numpy", "transformers")),
        ("bert_lamb.study.command", ("torch", "transformers", "deepspeed")),
    ],
)
def test_importing_a_room_is_light(module, heavy):
    """The command line and scoring bring neither torch nor hydra, the optimizers nothing but torch."""
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home())
    assert found.stdout.strip() == "[]"
