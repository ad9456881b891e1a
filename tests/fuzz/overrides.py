"""Wrong words of a command line, from the schema of each command: every key meets values of every other type."""

import random
from collections.abc import Iterator
from functools import cache

from bert_lamb.cli.compose import compose
from bert_lamb.outputs.plain import flatten, to_plain
from tests.fuzz.material import JOBS

# Values by kind; most keys refuse most of them.
VALUES: dict[str, tuple[str, ...]] = {
    "nothing": ("", "null", "???", "''"),
    "not finite": ("nan", "inf", "-inf", "1e400"),
    "out of range": ("-1", "0", "-0.5", "1e-300", "1.0000001", "65536"),
    "huge": (str(2**31), str(2**63), str(10**30), "1e300", "9" * 5000),
    "another type": ("1.5", "true", "x", "3x", "0x10", "1_000", "12:30", "on"),
    "a list": ("[]", "[1,2]", "[null]", "[[1],[2]]", "[a,b]", "[-1]"),
    "a mapping": ("{}", "{a:1}", "{a:{b:[1]}}", "{1:2}"),
    "characters": ("é", "中文🙂", "a\nb", "\x1b[31mred", "a\udce9", "\u2028", "a\tb", "x" * 5000),
    "quotes and shells": (
        "$(x)",
        "'x",
        "\"x'",
        "`x`",
        "a,b",
        "choice(1,2)",
        "range(1,3)",
        "a b",
        "\\",
        "[1,2",
        "{a:",
        "#",
    ),
    "interpolations": (
        "${oc.env:NOT_THERE}",
        "${nothing}",
        "${seed}",
        "${",
        "${oc.decode:x}",
        "${.}",
        "${oc.env:HOME}",
    ),
    "paths": (
        "../nowhere/x",
        "/dev/full",
        "/dev/null",
        "/proc/self/x",
        "~nobody-at-all/x",
        "text.txt",
        "text.txt/x",
        "x/" * 3000,
        "y" * 300,
        ".",
        "/proc/1/root/x",
    ),
}
# How long a command works: a huge number there is no mistake, only a long run.
ENDLESS = ("total_steps", "num_epochs", "seeds", "timeout_seconds", "stop_after_minutes")
PROCESSES, MOST_PROCESSES = ("num_workers", "loader_workers", "num_threads"), 64
GROUPS = (
    "recipe",
    "model",
    "optimizer",
    "runtime",
    "tracker",
    "corpus",
    "fine_tuning",
    "glue_task",
    "quiet",
    "schema",
    "spread",
)
OF_OPTIMIZERS = ("betas", "beta", "eps", "trust_ratio_bounds", "bias_correction", "implementation", "weight_decay")
OPTIMIZERS = ("lamb", "lars", "adamw")


def is_ended_soon(key: str, value: str) -> bool:
    """Not so with a number that is right by its kind, and asks for years, or for more processes than there can be."""
    is_large = value in VALUES["huge"] or (value.isdecimal() and int(value) > MOST_PROCESSES)
    return not (is_large and key.endswith((*ENDLESS, *PROCESSES)))


@cache
def keys_of(job: str) -> tuple[str, ...]:
    """Every key of a job's command, dotted; those of phases, sources and tasks with the names that the job has."""
    command, *words = JOBS[job].words
    tree = to_plain(compose(command, words))
    more = {"scores.b": 0, "runtime.micro_batch_size.fine_tuning": 0, "runtime.deepspeed_overrides.zero": 0}
    found = flatten(tree) | {key: 0 for key in more if key.split(".")[0] in tree}
    return tuple(sorted(found.keys() | tree.keys()))


def with_wrong_values(job: str, draws: random.Random, *, per_key: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(kind, words) of a job in which one key has a value that most likely does not belong there."""
    words = JOBS[job].words
    for key in keys_of(job):
        for kind in draws.sample(list(VALUES), per_key):
            values = [one for one in VALUES[kind] if is_ended_soon(key, one)]
            if values:
                yield f"value: {kind}", (*words, f"{key}={draws.choice(values)}")


def with_wrong_words(job: str, draws: random.Random, *, number: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(kind, words) of a job with words that no key is, doubled ones, deleted ones, two that contradict each other."""
    words, keys = JOBS[job].words, keys_of(job)

    def key() -> str:
        return draws.choice([one for one in keys if not one.endswith((*ENDLESS, *PROCESSES))])

    def value() -> str:
        return draws.choice(VALUES[draws.choice(list(VALUES))])

    def without_one() -> tuple[str, ...]:
        at = draws.randrange(1, len(words))
        return (*words[:at], *words[at + 1 :])

    kinds = {
        "a key unknown": lambda: (
            *words,
            draws.choice(["", "+", "++"]) + draws.choice([key() + "x", "x." + key(), "é.x", "x" * 3000]) + "=1",
        ),
        "a key below a value": lambda: (*words, f"{draws.choice(['', '+', '++'])}{key()}.x={value()}"),
        "a group's value unknown": lambda: (*words, f"{draws.choice(['', '+'])}{draws.choice(GROUPS)}={value()}"),
        "a group's value of another": lambda: (
            *words,
            f"{draws.choice(GROUPS)}={draws.choice(['demo', 'cpu', 'lars', 'hydra', 'pretrain', 'text'])}",
        ),
        "a key twice": lambda: (*words, f"{(one := key())}={value()}", f"{one}={value()}"),
        "a key added that is there": lambda: (*words, f"+{key()}={value()}"),
        "a key forced": lambda: (*words, f"++{key()}={value()}"),
        "a key deleted": lambda: (*words, f"~{key()}"),
        "a key deleted with a value": lambda: (*words, f"~{key()}={value()}"),
        "a word left out": without_one,
        "a word without a value": lambda: (
            *words,
            draws.choice([key(), "x", "", "=", "==", "=x", "+", "~", "~~x", "+=", "@", "a@b=c"]),
        ),
        "a package": lambda: (*words, f"{draws.choice(GROUPS)}@{key()}={draws.choice(['demo', 'x', 'lamb'])}"),
        "two wrong values": lambda: (*words, f"{key()}={value()}", f"{key()}={value()}"),
        "two at once": lambda: (*words, f"{key()}={value()} {key()}={value()}"),
        "the wrong command's words": lambda: (words[0], *JOBS[draws.choice(list(JOBS))].words[1:]),
        "a flag": lambda: (
            *words,
            draws.choice(
                [
                    "--nonsense",
                    "-x",
                    "--cfg",
                    "--cfg=x",
                    "--config-dir=/nowhere",
                    "--config-name=x",
                    "-p",
                    "--multirun=x",
                    "hydra.x=1",
                    "hydra/launcher=x",
                    "--package=x",
                    "--resolve",
                ]
            ),
        ),
        "the optimizer's keys": lambda: (
            *words,
            f"optimizer={draws.choice(OPTIMIZERS)}",
            f"optimizer.{draws.choice(OF_OPTIMIZERS)}={value()}",
        ),
    }
    for _ in range(number):
        kind = draws.choice(list(kinds))
        yield f"words: {kind}", tuple(kinds[kind]())
