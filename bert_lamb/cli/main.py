"""`bert-lamb <command> [overrides]`: let Hydra compose conf/, hand the typed configuration to the command.

A plain call composes with Hydra's Compose API, so that every complaint is a line and exit status 2. Calls with one of
Hydra's own flags (--cfg, --help, --info, -m ...), and those that choose a launcher, go through
hydra.main.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from bert_lamb import __version__
from bert_lamb.cli import faults
from bert_lamb.cli.faults import EXIT_USER_ERROR
from bert_lamb.cli.quiet import take_flags
from bert_lamb.cli.streams import patient_streams
from bert_lamb.errors import UserError
from bert_lamb.train.stop import stop_on_signals

SUMMARIES = {
    "demo-data": "fetch the embedded default corpus and make its question-answering set",
    "prepare": "raw text -> shards for every sequence length, and their manifest",
    "merge": "what `prepare share=I/N` left on one or many machines -> shards and manifest",
    "vocab": "train a WordPiece vocabulary on a corpus",
    "verify": "check every hash, count and invariant of prepared shards",
    "inspect": "show instances of prepared shards as text",
    "pretrain": "shards -> checkpoints, phase after phase (also under torchrun, deepspeed, srun)",
    "doctor": "a machine, or a cluster under a launcher, examined before a run; takes the arguments of pretrain",
    "plan": "memory, time, energy and cost of a run on given GPUs; takes the arguments of pretrain",
    "batch": "the texts and masks of any step of a run; the order of an epoch as a file",
    "evaluate": "masked-LM loss and accuracy of any BERT on any shards",
    "export": "a checkpoint -> a folder that transformers loads",
    "push": "a model folder -> the Hugging Face hub (dry_run=true: what would be sent)",
    "import": "a checkpoint of TensorFlow, NVIDIA, DeepSpeed or PyTorch -> a folder that transformers loads",
    "ask": "one question about one text, answered by a fine-tuned model",
    "score": "score predictions as the official SQuAD scripts do",
    "squad": "fine-tune, predict and score extractive question answering (also under torchrun, deepspeed, srun)",
    "glue": "fine-tune, predict and score tasks of GLUE (also under torchrun, deepspeed, srun)",
    "vision": "train and score a network on images, as in the LAMB paper (also under torchrun, deepspeed, srun)",
    "report": "report.json and report.html of a run",
    "study": "a grid of runs, by optimizer, batch and seed -> one table, one figure; takes the arguments of pretrain",
}
STOP_BETWEEN_STEPS = ("pretrain", "squad", "glue", "vision", "study")  # upon a signal, with a checkpoint
# Words of calls whose result is what they print; the others leave files, and print what they did.
PRINT_THEIR_RESULT = {
    "doctor",
    "plan",
    "batch",
    "inspect",
    "verify",
    "score",
    "evaluate",
    "ask",
    "push",
    "--version",
    "-h",
    "--help",
    "-c",
    "--cfg",
    "-i",
    "--info",
    "--hydra-help",
    "completion",
}
# A plain call has no launcher: what chooses or sets one goes where it is heeded.
MARKS_OF_HYDRA = ("-", "hydra.", "hydra/", "+hydra.", "++hydra.", "spread=")


def usage() -> str:
    width = max(map(len, SUMMARIES))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in SUMMARIES.items())
    return (
        "usage: bert-lamb <command> [key=value ...] [Hydra flags]\n\n"
        f"commands:\n{commands}\n\n"
        "bert-lamb <command> --help lists the configuration of a command, --cfg job prints it composed,\n"
        "-m sweeps over comma-separated values, -v shows what libraries say that is otherwise silenced.\n"
        "bert-lamb --version prints the version, bert-lamb completion bash|zsh a script for completion in the shell.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status (0 done, 1 a check failed, 2 a mistake to fix)."""
    # The deepspeed launcher adds --local_rank=N; the rank is read from the environment that it also sets.
    given = sys.argv[1:] if argv is None else argv
    arguments = take_flags([word for word in given if not word.startswith("--local_rank")])
    # Signals are heard before anything heavy is imported: one that comes early must not end a run that can be resumed.
    with (
        patient_streams() as output,
        stop_on_signals() if arguments[:1] and arguments[0] in STOP_BETWEEN_STEPS else nullcontext(),
    ):
        try:
            status = _main(arguments)
        except SystemExit:  # a signal upon which all ranks have agreed
            faults.leave_with_the_others()
            raise
        faults.leave_with_the_others()
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
        if command == "completion":
            from bert_lamb.cli.completion import completion

            return completion(overrides, SUMMARIES)
        if command not in SUMMARIES:
            raise UserError(
                found=f"command {command!r}", expected=f"one of {', '.join(SUMMARIES)}", fix="see bert-lamb --help"
            ).reported_by("machine")
        if any(word.startswith(MARKS_OF_HYDRA) for word in overrides) and not _asks_for_jobs(command, overrides):
            from bert_lamb.cli.under_hydra import run_under_hydra

            return run_under_hydra(command, overrides)
        return _compose_and_run(command, overrides)
    except KeyboardInterrupt:
        print(f"bert-lamb {command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        return faults.fail(command, error)


def _compose_and_run(command: str, overrides: Sequence[str]) -> int:
    from bert_lamb.cli.compose import compose
    from bert_lamb.cli.run import run

    of_launcher: list[str] = []
    try:
        if command == "study" and (of_launcher := [word for word in overrides if word.startswith(MARKS_OF_HYDRA)]):
            from bert_lamb.cli.overrides import make_ready, without_ours
            from bert_lamb.config.study import StudyConfig

            # The words of a sweep, whose texts Hydra would cut at commas.
            overrides = without_ours(make_ready(StudyConfig, [word for word in overrides if word not in of_launcher]))
        config = compose(command, [*overrides, *of_launcher])
    except UserError as error:
        error.reported_by("machine")  # every rank has the same command line
        raise
    if command == "study":  # each of its runs is composed from its words again
        config.study.words, config.study.jobs = list(overrides), of_launcher
    return run(command, config)


def _asks_for_jobs(command: str, words: Sequence[str]) -> bool:
    """Whether it is a study whose runs a launcher shall take; a job of it names its run."""
    no_study = command != "study" or any(word.startswith(("-", "study.cell=")) for word in words)
    return not no_study and any(word.startswith(("spread=", "hydra/launcher=")) for word in words)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        refused = UserError(
            found="a working folder that was deleted", expected="one that is there", fix="cd into another"
        )
        raise refused.reported_by("machine") from error


if __name__ == "__main__":
    sys.exit(main())
