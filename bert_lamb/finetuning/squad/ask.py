"""`bert-lamb ask`: one question about one text, answered by a fine-tuned model."""

from dataclasses import dataclass
from pathlib import Path

from bert_lamb.checkpoint.folder.contents import check_folder
from bert_lamb.checkpoint.folder.files import read_bytes
from bert_lamb.engine.launch import this_process
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.examples import Example
from bert_lamb.finetuning.squad.features import make_features
from bert_lamb.finetuning.squad.material import WindowSettings
from bert_lamb.finetuning.squad.model import check_lengths, load_model
from bert_lamb.finetuning.squad.predict import Ranking, predict_logits, rank_answers
from bert_lamb.model.encoder import Execution
from bert_lamb.model.span import SpanModel

MICRO_BATCH_SIZE = 16
SURROUNDINGS = 40  # characters of the context that are shown on each side of the best answer


@dataclass(frozen=True)
class AnswerSettings:
    """num_answers: that are shown. max_answer_length: tokens. may_be_unanswerable: "no answer" is one of them."""

    num_answers: int
    max_answer_length: int
    may_be_unanswerable: bool


def ask(model_dir: Path, context_file: Path, question: str, windows: WindowSettings, answers: AnswerSettings) -> None:
    """Print the best answers with their probabilities, and where the first one occurs. Raises UserError."""
    process = this_process(device="auto", num_threads=None)
    check_folder(model_dir)
    context = read_context(context_file)
    if not question.strip():
        raise UserError(found="question without text", expected="a question", fix="set question")
    loaded = load_model(model_dir, is_pretrained=True, needs_head=True, seed=0)
    check_lengths(windows.max_seq_length, loaded.model)
    example = Example("question", question, context, ())
    features = make_features(
        [example],
        loaded.tokenizer,
        max_seq_length=windows.max_seq_length,
        doc_stride=windows.doc_stride,
        max_query_length=windows.max_query_length,
        is_shown=False,
    )
    logits = predict_logits(
        SpanModel(loaded.model, Execution()),
        features,
        micro_batch_size=MICRO_BATCH_SIZE,
        precision="fp32",
        process=process,
    )
    ranking = rank_answers(
        example,
        features,
        logits,
        n_best_size=answers.num_answers,
        max_answer_length=answers.max_answer_length,
        may_be_unanswerable=answers.may_be_unanswerable,
    )
    print("\n".join(lines_of(ranking, context)))


def read_context(file: Path) -> str:
    """The text of a UTF-8 file; raises UserError."""
    content = read_bytes(file, expected="a text", fix="set context")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(found=f"{file} that is not UTF-8 ({error})", expected="UTF-8", fix="convert it") from error


def lines_of(ranking: Ranking, context: str) -> list[str]:
    """A line for each answer, and the best one within its surroundings."""
    lines = [f"{one.probability:>6.1%}  {one.text or '(no answer)'}" for one in ranking.candidates]
    best = ranking.candidates[0].text
    if best:
        start = context.index(best)
        before = context[max(0, start - SURROUNDINGS) : start]
        after = context[start + len(best) :][:SURROUNDINGS]
        lines += ["", " ".join(f"...{before}[{best}]{after}...".split())]
    return lines
