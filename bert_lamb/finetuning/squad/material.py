"""Everything a fine-tuning reads, checked as a whole before anything is written: questions, model folder, windows."""

from dataclasses import dataclass
from pathlib import Path

from bert_lamb.checkpoint.folder.contents import check_folder, input_files
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.finetuning.hub import hash_of
from bert_lamb.finetuning.squad.examples import Questions, read_examples
from bert_lamb.finetuning.squad.features import NO_ANSWER, Feature, answer_positions, make_features
from bert_lamb.finetuning.squad.hub import HubSplit, read_hub_examples
from bert_lamb.finetuning.squad.model import Loaded, check_lengths, load_model
from bert_lamb.outputs.hashing import file_sha256

MAX_UNKNOWN_SHARE = 0.05  # of the tokens; more [UNK] is said


@dataclass(frozen=True)
class Sources:
    """Where the material comes from. train_file: None predicts and scores only."""

    model_dir: Path
    train_file: Path | HubSplit | None
    eval_file: Path | HubSplit
    is_pretrained: bool  # False: weights are drawn, not read

    def read_examples(self) -> tuple[Questions, Questions]:
        """(training, evaluation) questions; UserError for files and folders that cannot be used."""
        if self.train_file is None and not self.is_pretrained:
            raise UserError(
                found="initial_weights=random without train_file",
                expected="something to learn from",
                fix="set train_file",
            )
        check_folder(self.model_dir)
        evaluation = read_questions(self.eval_file)
        none = Questions([], evaluation.version)
        return read_questions(self.train_file) if self.train_file is not None else none, evaluation

    def describe(self) -> dict[str, dict[str, str]]:
        """Name -> path and sha256 of every file that the scores depend on."""
        of_model = input_files(self.model_dir, is_pretrained=self.is_pretrained)
        files: dict[str, Path | HubSplit] = {"eval_file": self.eval_file}
        files |= {f"model/{name}": file for name, file in of_model.items()}
        if self.train_file is not None:
            files["train_file"] = self.train_file
        return {name: {"path": str(file), "sha256": _sha256(file)} for name, file in files.items()}

    def check_if_outside(self, run_dir: Path) -> None:
        """What is in run_dir may be deleted; models and questions must be elsewhere."""
        for path in (self.model_dir, self.train_file, self.eval_file):
            if isinstance(path, Path) and path.resolve().is_relative_to(run_dir.resolve()):
                raise UserError(
                    found=f"{path} inside run_dir={run_dir}",
                    expected="models and questions elsewhere, since what was in run_dir is deleted",
                    fix="set run_dir",
                )


def read_questions(source: Path | HubSplit) -> Questions:
    return read_hub_examples(source) if isinstance(source, HubSplit) else read_examples(source)


def _sha256(source: Path | HubSplit) -> str:
    return hash_of(read_hub_examples(source)) if isinstance(source, HubSplit) else file_sha256(source)


@dataclass(frozen=True)
class WindowSettings:
    """How questions and contexts become features; tokens."""

    max_seq_length: int
    doc_stride: int
    max_query_length: int


@dataclass(frozen=True)
class Material:
    """What was read. positions: the first and last answer token of each training feature."""

    loaded: Loaded
    train_examples: Questions
    train_features: list[Feature]
    positions: list[tuple[int, int]]
    eval_examples: Questions
    eval_features: list[Feature]


def read_material(
    sources: Sources,
    train_examples: Questions,
    eval_examples: Questions,
    windows: WindowSettings,
    process: Process,
    *,
    seed: int,
) -> Material:
    """The model and every feature; raises UserError. seed: draws the weights that the folder does not have."""
    has_training = sources.train_file is not None
    loaded = load_model(sources.model_dir, is_pretrained=sources.is_pretrained, needs_head=not has_training, seed=seed)
    check_lengths(windows.max_seq_length, loaded.model)
    if process.is_main:
        print(f"{sources.model_dir}: {describe_model(loaded, is_pretrained=sources.is_pretrained)}", flush=True)
        if (warning := loaded.tokenizer.warn_of_casing()) is not None:
            print(f"{sources.model_dir}: {warning}", flush=True)
    train_features = windows_of(train_examples, loaded.tokenizer, windows, process, name="train")
    positions = positions_of(train_examples, train_features, process) if has_training else []
    eval_features = windows_of(eval_examples, loaded.tokenizer, windows, process, name="eval")
    return Material(loaded, train_examples, train_features, positions, eval_examples, eval_features)


def describe_model(loaded: Loaded, *, is_pretrained: bool) -> str:
    """One line on what is fine-tuned: sizes, where the weights come from, and what of the folder is not used."""
    sizes, head = loaded.model.config, "its own" if loaded.has_own_head else "new"
    weights = "pretrained" if is_pretrained else "random"
    left_over = sorted({key.removeprefix("bert.").split(".")[0] for key in loaded.left_over})
    return (
        f"BERT with {sizes.num_hidden_layers} layers, hidden size {sizes.hidden_size}, "
        f"{weights} weights, {head} question-answering head"
        + (f"; not used: {', '.join(left_over)}" if left_over else "")
    )


def windows_of(
    examples: Questions, tokenizer: WordPieces, windows: WindowSettings, process: Process, *, name: str
) -> list[Feature]:
    """The features of `examples`; says so when much of them is not in the vocabulary."""
    if not examples:
        return []
    features = make_features(
        examples,
        tokenizer,
        max_seq_length=windows.max_seq_length,
        doc_stride=windows.doc_stride,
        max_query_length=windows.max_query_length,
        name=name,
        is_shown=process.is_main,
    )
    num_tokens = sum(len(feature.input_ids) for feature in features)
    unknown_share = sum(feature.input_ids.count(tokenizer.unk_id) for feature in features) / num_tokens
    if unknown_share > MAX_UNKNOWN_SHARE and process.is_main:
        print(
            f"{name}: {unknown_share:.0%} of the tokens are {tokenizer.special['unk']}; is this the right vocabulary?",
            flush=True,
        )
    return features


def positions_of(examples: Questions, features: list[Feature], process: Process) -> list[tuple[int, int]]:
    """Where each feature shows its question's first answer; says how many answers no window shows whole."""
    answers = [examples[feature.example_index].answers for feature in features]
    positions = [
        answer_positions(feature, of_one[0]) if of_one else NO_ANSWER
        for feature, of_one in zip(features, answers, strict=True)
    ]
    shown = {f.example_index for f, position in zip(features, positions, strict=True) if position != NO_ANSWER}
    num_unanswerable = sum(not example.answers for example in examples)
    if process.is_main:
        print(
            f"train: {len(examples):,} questions in {len(features):,} windows; "
            f"{len(examples) - len(shown) - num_unanswerable:,} answers are not whole in any window"
            + (f"; {num_unanswerable:,} questions have no answer" if examples.version == "2.0" else ""),
            flush=True,
        )
    return positions
