"""Library warnings that the user of a command can do nothing about: the one list of them. `-v` shows them.

An entry names who speaks and the words, so that everything else a library says is still seen. No library is imported
here: loggers are known by name, and what is in the environment is read when a library is imported.
"""

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence

VARIABLE = "BERT_LAMB_VERBOSE"  # what -v sets, so that the processes which a command starts know it
FLAGS = ("-v", "--verbose")

# Logger -> the beginnings of its messages, as regular expressions.
RECORDS: dict[str, tuple[str, ...]] = {
    # The engine's adapter makes LAMB exact under ZeRO, and its tests hold it to that.
    "DeepSpeed": (r"\*\*\*\* You are using ZeRO with an untested optimizer",),
    # Operators of images, which no BERT has.
    "torch.onnx._internal.exporter._registration": ("torchvision is not installed",),
}
# (beginning of the message, category, module), as regular expressions
WARNINGS: tuple[tuple[str, type[Warning], str], ...] = (
    # DeepSpeed calls collectives by names that torch has deprecated.
    (r"`torch\.distributed\.\w+` is deprecated", FutureWarning, r"torch\.distributed\."),
    # torch's conversion to ONNX: a name of its own that it deprecated, and axes that all inputs share.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning, "copyreg"),
    (r"# The axis name: \w+ will not be used", UserWarning, r"torch\.onnx\."),
    # How the writer of a file of weights has packed it; what cannot be read is an error of ours.
    (r"'torch\.load' received a zip file that looks like a TorchScript archive", UserWarning, r"bert_lamb\."),
    (r"Detected pickle protocol \d in the checkpoint", UserWarning, r"torch\."),
    # One class alone in an evaluation of GLUE: Matthews' correlation is 0 by definition (finetuning/glue/metrics.py).
    (r"A single label was found in 'y_true' and 'y_pred'", UserWarning, r"sklearn\.metrics\."),
)
# torch's C++ side reports each connection that closes, with a stack; what went wrong is an error of ours.
ENVIRONMENT = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
# A log is no terminal: a bar becomes hundreds of columns of it. Long work of ours prints lines there (progress.py).
ENVIRONMENT_OF_LOGS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def _is_shown(record: logging.LogRecord) -> bool:
    return not any(re.match(beginning, record.getMessage()) for beginning in RECORDS[record.name])


def take_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments without -v, which this process and those that it starts remember."""
    rest = [word for word in arguments if word not in FLAGS]
    if len(rest) < len(arguments):
        os.environ[VARIABLE] = "1"
    return rest


def be_quiet() -> None:
    """Silence what the lists above name, unless -v was given; call it before any library is imported."""
    if os.environ.get(VARIABLE):
        return
    of_logs = {} if sys.stderr.isatty() else ENVIRONMENT_OF_LOGS
    for name, value in {**ENVIRONMENT, **of_logs}.items():
        os.environ.setdefault(name, value)
    for message, category, module in WARNINGS:
        warnings.filterwarnings("ignore", message, category, module)
    for logger in RECORDS:
        logging.getLogger(logger).addFilter(_is_shown)
