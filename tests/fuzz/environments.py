"""Wrong variables of the environment, streams that are closed, outputs where no output can be."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fuzz.material import JOBS

NUMBERS = ("", " ", "x", "-1", "1.5", "0x1", "٣", "9" * 30, "²", "1 2")
VARIABLES: dict[str, tuple[str, ...]] = {
    "RANK": NUMBERS,
    "WORLD_SIZE": (*NUMBERS, "0", "2"),
    "LOCAL_RANK": (*NUMBERS, "1"),
    "LOCAL_WORLD_SIZE": NUMBERS,
    "SLURM_PROCID": (*NUMBERS, "1"),
    "SLURM_NTASKS": NUMBERS,
    "SLURM_STEP_NUM_TASKS": (*NUMBERS, "2"),
    "SLURM_JOB_ID": NUMBERS,
    "OMPI_COMM_WORLD_SIZE": (*NUMBERS, "2"),
    "MASTER_ADDR": ("", "not a host", "é", "256.1.1.1"),
    "MASTER_PORT": (*NUMBERS, "70000"),
    "OMP_NUM_THREADS": (*NUMBERS, "0", "100000"),
    "CUDA_VISIBLE_DEVICES": ("", "x", "-1", "7,8"),
    "HOME": ("", "/nowhere", "text.txt", "/dev/null", "é\udce9"),
    "TMPDIR": ("", "/nowhere", "text.txt", "/dev/null"),
    "LANG": ("", "C", "xx_YY.UTF-99"),
    "LC_ALL": ("", "C", "POSIX", "xx"),
    "COLUMNS": (*NUMBERS, "0", "1"),
    "TERM": ("", "dumb", "x"),
    "WANDB_MODE": ("", "x", "online"),
    "HF_HOME": ("", "/dev/null/x", "text.txt"),
    "MPLBACKEND": ("", "x", "nonsense"),
    "MPLCONFIGDIR": ("/dev/null", "text.txt"),
    "HYDRA_FULL_ERROR": ("1", "x"),
    "PYTHONWARNINGS": ("", "x", "always"),
    "TZ": ("", "x/y"),
    "USER": ("", "é"),
    "DS_ACCELERATOR": ("", "x"),
    "TORCHELASTIC_RUN_ID": ("", "x"),
    "NO_COLOR": ("1",),
    "PAGER": ("x",),
}
# Read when Python or a library starts: only a process of its own shows what they do.
AT_THE_START = {
    **{
        name: VARIABLES[name]
        for name in ("OMP_NUM_THREADS", "LANG", "LC_ALL", "HOME", "TMPDIR", "HF_HOME", "MPLBACKEND", "DS_ACCELERATOR")
    },
    "PYTHONIOENCODING": ("ascii", "x", "ascii:strict", "utf-16", ":replace"),
    "PYTHONUTF8": ("0",),
    "PYTHONHASHSEED": ("0",),
    "COLUMNS": VARIABLES["COLUMNS"],
    "RANK": VARIABLES["RANK"],
    "MPLCONFIGDIR": VARIABLES["MPLCONFIGDIR"],
    "TORCH_LOGS": ("nonsense",),
    "TRANSFORMERS_VERBOSITY": ("nonsense", "debug"),
    "HF_HUB_OFFLINE": ("nonsense",),
    "TOKENIZERS_PARALLELISM": ("nonsense",),
}
IN_THE_WAY = (
    *("text.txt", "text.txt/x", "/dev/full", "/dev/null", "/dev/null/x", "/proc/self/x", "/proc/x/y", "/sys/x"),
    *("glue", "shards", "run", "encoder", ".", "..", "n" * 300, "a/" * 2500, "dangling", "looping", "/"),
)
OF_OUTPUT = ("output_dir", "run_dir", "output_file", "page", "output")


@dataclass(frozen=True)
class Surroundings:
    """variables: beside those that are set. closed: which of "012" are closed streams."""

    variables: dict[str, str] = field(default_factory=dict)
    closed: str = ""


def with_wrong_variables(job: str, draws: random.Random, *, number: int) -> Iterator[tuple[str, Surroundings]]:
    for _ in range(number):
        names = draws.sample(list(VARIABLES), draws.choice((1, 1, 1, 2, 3)))
        variables = {name: draws.choice(VARIABLES[name]) for name in names}
        if "WORLD_SIZE" in variables and "MASTER_ADDR" in variables:  # may be right, and wait for the other ranks
            del variables["MASTER_ADDR"]
        yield "environment: variables", Surroundings(variables)


def with_closed_streams(job: str, draws: random.Random, *, number: int) -> Iterator[tuple[str, Surroundings]]:
    for _ in range(number):
        yield "environment: closed streams", Surroundings(closed=draws.choice(("0", "1", "2", "01", "12", "012")))


def with_something_in_the_way(job: str, draws: random.Random, *, number: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Words of a job that writes where no such output can be; nothing that is there may be lost."""
    words = JOBS[job].words
    keys = [word.partition("=")[0] for word in words if word.partition("=")[0] in OF_OUTPUT]
    for _ in range(number if keys else 0):
        policy = draws.choice(("refuse", "resume", "restart"))
        more = (f"if_exists={policy}",) if words[0] not in ("merge", "score", "doctor") else ()
        yield "environment: output in the way", (*words, f"{draws.choice(keys)}={draws.choice(IN_THE_WAY)}", *more)
