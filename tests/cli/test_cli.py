"""The command line as a user meets it: mistakes are one line each, exit status 2, no traceback; Hydra's flags work.

Breaks that turn this file red: letting Hydra's exceptions through, exit status 1, complaints one at a time.
"""

import os
import subprocess
import sys

import pytest
import yaml

from bert_lamb.cli import main as cli
from bert_lamb.cli.commands import COMMANDS
from bert_lamb.cli.compose import compose as compose_typed
from bert_lamb.cli.compose import conf_dir
from bert_lamb.config import corpus, runtime
from bert_lamb.config.door import SCHEMAS
from bert_lamb.shards import schema
from tests.launch import CHECKOUT

RECIPE = ["pretrain", "recipe=lamb_32k", "shards=/nowhere", "run_dir=/tmp/never"]


def run(capsys, *arguments):
    """(exit status, lines of stderr, stdout) of a call in this process."""
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.err.splitlines(), captured.out


SQUAD = ["squad", "model_dir=m", "eval_file=e", "run_dir=o"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pretrian"], ["found command 'pretrian'; expected one of demo-data, prepare"]),
        ([*RECIPE, "phases.phase1.peek_lr=1"], ["Key 'peek_lr' not in 'PhaseConfig'"]),
        ([*RECIPE, "runtime.zero_stage=two"], ["Value 'two' of type 'str' could not be converted to Integer"]),
        ([*RECIPE, "runtime.compile=all"], ["found runtime.compile=all; expected false, auto, layers or model"]),
        ([*RECIPE, "runtime.compile=layers", "runtime.zero_stage=3"], ["expected false or auto in ZeRO stage 3"]),
        ([*RECIPE, "runtime.micro_batch_tokens=100"], ["runtime.micro_batch_tokens=100; expected at least max_seq"]),
        ([*RECIPE, "runtime.micro_batch_size=8"], ["runtime.micro_batch_size=8; expected auto, or sequences by stage"]),
        ([*RECIPE, "runtime.micro_batch_size.phase1=auto"], ["micro_batch_size.phase1=auto; expected sequences per"]),
        ([*RECIPE, "runtime.micro_batch_size.phase1=1.5"], ["micro_batch_size.phase1=1.5; expected sequences per"]),
        ([*RECIPE, "runtime.micro_batch_size.phase1=true"], ["micro_batch_size.phase1=True; expected sequences per"]),
        ([*RECIPE, "runtime.zero_stage=4"], ["found runtime.zero_stage=4; expected 0, 1, 2 or 3"]),
        ([*RECIPE, "runtime.precision=fp8"], ["Invalid value 'fp8', expected one of [fp32, bf16, fp16]"]),
        (["pretrain", "recipe=lamb_33k"], ["Could not find 'recipe/lamb_33k'"]),
        (["pretrain", "recipe=lamb_32k"], ["found no value for run_dir", "found no value for shards"]),
        (["pretrain", "run_dir=r", "shards=s"], ["found phases={}; expected at least one phase (choose a recipe)"]),
        ([*RECIPE, "seed"], ["missing EQUAL"]),
        ([*RECIPE, "runtime=cpu"], ["found no manifest.json in /nowhere"]),
        (
            [*RECIPE, "masking.mask_prob=1.5", "max_grad_norm=-1", "phases.phase2.total_steps=0"],
            ["phases.phase2.total_steps=0", "masking.mask_prob=1.5", "max_grad_norm=-1"],
        ),
        ([*RECIPE, "phases.phase2.max_seq_length=1024"], ["at most model.max_position_embeddings=512"]),
        ([*RECIPE, "runtime.engine=torch", "runtime.precision=fp16"], ["found runtime.precision=fp16"]),
        (
            [*RECIPE, "runtime.engine=fsdp", "runtime.precision=fp16", "runtime.offload_optimizer=true"],
            ["expected runtime.engine=deepspeed with", "expected fp32 or bf16 with runtime.engine=fsdp"],
        ),
        (
            [*RECIPE, "runtime.engine=fsdp", "+runtime.deepspeed_overrides.steps_per_print=1"],
            ["found runtime.deepspeed_overrides={'steps_per_print': 1}; expected none with runtime.engine=fsdp"],
        ),
        ([*RECIPE, "model.num_heads=7"], ["found model.hidden_size=1024; expected a multiple of model.num_heads=7"]),
        ([*RECIPE, "runtime.precision=fp16", "runtime.zero_stage=0"], ["expected 1, 2 or 3 with fp16"]),
        ([*RECIPE, "optimizer.betas=[0.9,1.0]"], ["found optimizer.betas=(0.9, 1.0)"]),
        ([*RECIPE, "optimizer.betas=[[1],[2]]"], ["found optimizer.betas=[[1], [2]]"]),
        ([*RECIPE, "optimizer.betas=${seed}"], ["found optimizer.betas=42"]),
        ([*RECIPE, "optimizer.trust_ratio_bounds=[[1],[2]]"], ["found optimizer.trust_ratio_bounds=[[1], [2]]"]),
        ([*RECIPE, "phases.phase1.peak_lr=1e300"], ["found phases.phase1.peak_lr=1e+300; expected at most 1e+30"]),
        ([*RECIPE, "optimizer=lars", "optimizer.beta=1"], ["found optimizer.beta=1.0; expected a number in [0, 1)"]),
        ([*RECIPE, "optimizer.trust_ratio_bounds=[3,1]"], ["expected [lower, upper] with 0 <= lower <= upper"]),
        ([*RECIPE, "optimizer.param_norm_bounds=[1]"], ["found optimizer.param_norm_bounds=[1.0]"]),
        (
            [*RECIPE, "optimizer.nesterov=both", "optimizer.bias_correction=false"],
            ["found optimizer.bias_correction=False; expected true with optimizer.nesterov=both"],
        ),
        ([*RECIPE, "optimizer.implementation=apex"], ["expected runtime.engine=torch: of ZeRO's partitions"]),
        (
            [*RECIPE, "optimizer.implementation=apex", "runtime.engine=torch", "optimizer.norm=l1"],
            ["found optimizer.norm=l1; expected its default: apex's FusedLAMB has no other"],
        ),
        (
            [*RECIPE, "optimizer=lars", "optimizer.implementation=apex", "runtime.engine=torch"],
            ["expected optimizer=lamb: apex has no such LARS"],
        ),
        (
            [*RECIPE, "runtime.micro_batch_size.phase11=8", "runtime.micro_batch_size.fine=8"],
            [
                "found runtime.micro_batch_size.fine=8; expected a stage of this run: phase1, phase2",
                "found runtime.micro_batch_size.phase11=8",
            ],
        ),
        (
            [*RECIPE, "phases.phase1.peak_lr=nan", "max_grad_norm=inf", "optimizer.betas=[0.9,nan]"],
            [
                "found optimizer.betas=nan",
                "found max_grad_norm=inf; expected a finite",
                "found phases.phase1.peak_lr=nan",
            ],
        ),
        (["prepare", "corpus=text", "sources.text.path=t", "output_dir=o", "sources.text.weight=nan"], ["weight=nan"]),
        ([*RECIPE, "phases.phase1.max_predictions_per_seq=127"], ["expected at most 126: of max_seq_length=128"]),
        ([*RECIPE, "optimizer.name=adam"], ["found optimizer.name=adam; expected one of lamb, lars, adamw, adam, "]),
        ([*RECIPE, "optimizer.name=lars"], ["found optimizer.name=lars"]),
        ([*RECIPE, "seed=9223372036854775808"], ["expected 0 to 2^63 - 1"]),
        ([*RECIPE, "model.init_std=0"], ["found model.init_std=0.0; expected a number above 0"]),
        (
            [*RECIPE, "runtime=cpu", "runtime.device=auto", "runtime.precision=fp16"],
            ["found runtime.precision=fp16 and runtime.device=auto where torch sees no GPU"],
        ),
        (
            [*SQUAD, "optimizer.weight_decay=-1", "max_grad_norm=-1"],
            ["found max_grad_norm=-1.0", "found optimizer.weight_decay=-1.0"],
        ),
        (
            [*SQUAD, "batch_size=8", "+device=cpu", "output_dir=o"],
            ["expected global_batch_size,", "expected runtime.device,", "expected run_dir, its present name"],
        ),
        ([*RECIPE, "evaluation.max_instances=-1"], ["found evaluation.max_instances=-1"]),
        (["prepare", "output_dir=o"], ["found sources={}; expected at least one source"]),
        (["prepare", "corpus=text", "output_dir=o"], ["found sources.text.path=''"]),
        (
            ["prepare", "corpus=text", "sources.text.path=t", "output_dir=o", "instances_per_shard=4194304"],
            ["found instances_per_shard=4194304; expected at most 4194303 at length 512"],
        ),
        (
            [*SQUAD, "seeds=0", "published.f2=1"],
            ["found seeds=0; expected a number above 0", "found published=f2; expected exact_match and f1"],
        ),
        (
            [*SQUAD, "global_batch_size=0", "runtime.micro_batch_size.fine_tuning=-1"],
            ["found global_batch_size=0; expected a number above 0", "found runtime.micro_batch_size.fine_tuning=-1"],
        ),
        ([*SQUAD, "model_dir=/nowhere"], ["/nowhere"]),
        (["export", "run_dir=/nowhere", "output_dir=o"], ["found no folder /nowhere"]),
        (["import", "source=/nowhere", "output_dir=o"], ["found no file, folder or TensorFlow checkpoint /nowhere"]),
        (["report", "run_dir=/nowhere"], ["/nowhere"]),
        (["inspect", "shards_dir=/nowhere"], ["no manifest.json in /nowhere"]),
        (
            ["inspect", "shards_dir=s", "shard=seq128/a.arrow", "split=train", "first=-1", "count=0"],
            ["found first=-1", "found count=0", "found shard=seq128/a.arrow; expected no max_seq_length and no split"],
        ),
        (["verify", "shards_dir=/nowhere"], ["no manifest.json in /nowhere"]),
    ],
)
def test_mistakes_are_told_in_one_line_each(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    status, lines, out = run(capsys, *arguments)
    if arguments[0] == "verify":  # a check that fails is a result
        assert status in (1, 2)
        assert expected[0] in out + "\n".join(lines)
        return
    assert status == 2
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line
        assert line.startswith(f"bert-lamb {arguments[0]}: found ")
        assert "; expected " in line
        assert "; fix: " in line
    assert not any(tmp_path.iterdir()), "nothing may be written"


def test_help_and_version(capsys):
    status, _, out = run(capsys, "--help")
    assert status == 0
    assert all(name in out for name in SCHEMAS)
    assert run(capsys)[0] == 0
    assert run(capsys, "--version")[2].startswith("bert-lamb ")


def call(*arguments, cwd, **environment):
    """A call in its own process, as from a shell."""
    return subprocess.run(
        [sys.executable, "-m", "bert_lamb", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
    )


def test_hydras_flags(tmp_path):
    """--cfg job prints the whole configuration, --help the groups, -m sweeps."""
    printed = call(*RECIPE, "--cfg", "job", cwd=tmp_path)
    config = yaml.safe_load(printed.stdout)
    assert printed.returncode == 0
    assert config["phases"]["phase1"]["peak_lr"] == 5e-3
    assert config["optimizer"]["name"] == "lamb"
    assert (
        "recipe: adamw_512, continue, deepspeed_64k_32k, demo, google_bert, hplt, lamb_16k"
        in call("pretrain", "--help", cwd=tmp_path).stdout
    )
    swept = call(*RECIPE, "runtime=cpu", "seed=1,2", "-m", cwd=tmp_path)
    assert swept.returncode == 2
    assert swept.stderr.count("found no manifest.json in /nowhere") == 2


def test_both_sides_agree_on_the_largest_shard():
    assert corpus.MAX_SHARD_TOKENS == schema.MAX_SHARD_TOKENS


def test_bounds_may_be_infinite_and_runtimes_name_phases_that_a_run_has_not():
    made = compose_typed("pretrain", [*RECIPE[1:], "optimizer.trust_ratio_bounds=[0.1,inf]", "~phases.phase2"])
    assert made.optimizer.trust_ratio_bounds == [0.1, float("inf")]
    for path in (conf_dir() / "runtime").glob("*.yaml"):
        chosen = yaml.safe_load(path.read_text())
        if not chosen.keys() & {"micro_batch_tokens", "defaults"}:  # which is of any stage; of another runtime
            assert chosen["micro_batch_size"].keys() == runtime.STAGES_OF_RUNTIMES


def test_terminals_that_are_not_utf8(tmp_path):
    """Characters that the terminal lacks are shown by their number, on both streams; closed streams do no harm."""
    words = ["--cfg", "job", "recipe=demo", "shards=s", "run_dir=/tmp/é中"]
    for encoding, shown in (("ascii", "/tmp/\\xe9\\u4e2d"), ("latin-1", "/tmp/é\\u4e2d")):
        code = "import sys; from bert_lamb.cli.main import main; sys.exit(main(sys.argv[1:]))"
        printed = subprocess.run(
            [sys.executable, "-c", code, "pretrain", *words],
            capture_output=True,
            cwd=tmp_path,
            check=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONIOENCODING": encoding},
        )
        assert f"run_dir: {shown}\n".encode(encoding) in printed.stdout
    closed = f"exec {sys.executable} -m bert_lamb inspect shards_dir=x"
    for streams, expected in (("<&- >&-", "found no manifest.json in x"), ("<&- >&- 2>&-", "")):
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        call = ["sh", "-c", f"{closed} {streams}"]
        ended = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False, env=environment)
        assert ended.returncode == 2
        assert expected in ended.stderr


def test_every_schema_has_a_command_and_a_root():

    assert SCHEMAS.keys() == COMMANDS.keys() == cli.SUMMARIES.keys()
    for command in SCHEMAS:
        assert (conf_dir() / f"{command}.yaml").exists()


@pytest.mark.parametrize("group", ["corpus", "fine_tuning", "model", "runtime", "tracker", "optimizer"])
def test_every_option_of_every_group_composes(group, monkeypatch):
    """With the values it leaves open filled in."""
    command = {"corpus": "prepare", "fine_tuning": "squad"}.get(group, "pretrain")
    needed = {
        "prepare": ["output_dir=o"],
        "squad": ["model_dir=m", "eval_file=e", "run_dir=o"],
        "pretrain": ["recipe=demo", "shards=s", "run_dir=r"],
    }[command]
    options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    assert options
    for option in options:
        node = yaml.safe_load((conf_dir() / group / f"{option}.yaml").read_text())
        extra = [
            f"sources.{name}.{field}=p"
            for name, source in ((node or {}).get("sources") or {}).items()
            for field, value in source.items()
            if value == "???" and field != "license"
        ]
        if group == "optimizer":
            extra.append("runtime=single")  # some are for one process
        assert compose_typed(command, [*needed, f"{group}={option}", *extra])


def test_every_kind_of_source_has_a_corpus():
    """A file of its own name, or the one named here, with a source of that kind."""
    named = {"mediawiki": "wikipedia_dump"}
    for kind in corpus.SourceKind:
        path = conf_dir() / "corpus" / f"{named.get(kind.value, kind.value)}.yaml"
        (source,) = yaml.safe_load(path.read_text())["sources"].values()
        assert source["kind"] == kind.value


def test_each_task_of_a_preparation_says_its_own_mistake(capsys, monkeypatch, tmp_path):
    """Tasks of srun that prepare shares know nothing of each other: no other one says it."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    words = ["corpus=text", "sources.text.path=t", "output_dir=o", "vocabulary.file=v", "share=4/4"]
    status, lines, _ = run(capsys, "prepare", *words)
    assert status == 2
    assert len(lines) == 1
    assert "found share=4/4" in lines[0]


@pytest.mark.parametrize(
    ("device", "has_gpu", "is_kept_on_cpu"),
    [("cpu", True, True), ("auto", False, True), ("auto", True, False), ("cuda", True, False)],
)
def test_deepspeed_is_kept_on_the_cpu_where_a_run_stays_there(monkeypatch, device, has_gpu, is_kept_on_cpu):
    """Else it would look for a GPU in vain, or, told so where there is one, compute beside it."""
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    ran = []
    monkeypatch.setattr("bert_lamb.pretraining.command.pretrain", ran.append)
    monkeypatch.setattr("bert_lamb.finetuning.squad.command.squad", ran.append)
    for command, run in (("pretrain", RECIPE[1:]), ("squad", SQUAD[1:])):
        config = compose_typed(command, [*run, f"runtime.device={device}"])
        assert COMMANDS[command](config) == 0
        assert ("DS_ACCELERATOR" in os.environ) == is_kept_on_cpu, command
        monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    assert len(ran) == 2


@pytest.mark.parametrize("words", [SQUAD, ["export", "run_dir=r", "output_dir=o"]])
def test_an_accelerator_that_deepspeed_does_not_know(words, monkeypatch, capsys):
    """DeepSpeed reads the variable when transformers imports it, and raises."""
    monkeypatch.setenv("DS_ACCELERATOR", "tpu")
    status, (line,), _ = run(capsys, *words)
    assert status == 2
    assert line.startswith(f"bert-lamb {words[0]}: found DS_ACCELERATOR=tpu in the environment; expected cpu or cuda")
