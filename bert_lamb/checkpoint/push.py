"""`bert-lamb push`: a model folder -> a repository of the Hugging Face hub, or of a server with the same API."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from bert_lamb.checkpoint.folder import tokenizer
from bert_lamb.checkpoint.folder.files import BYTE_ORDER_MARK, read_json
from bert_lamb.checkpoint.folder.weight_files import list_weights
from bert_lamb.errors import UserError

CONFIG, CARD, WEIGHTS = "config.json", "README.md", ".safetensors"
PUBLISHED = {".json", ".txt", ".md", ".onnx", WEIGHTS}  # what our commands write; nothing that a program could run


def push(
    folder: Path, repo: str, *, is_private: bool, message: str | None, endpoint: str | None, is_dry_run: bool
) -> None:
    """Upload every file of the folder in one commit, making the repository where there is none.

    is_dry_run: check the folder, say what would be sent, and send nothing; no network, no token. endpoint: another hub.
    Raises UserError for a folder that is no model of ours or holds other files, and for what the hub refuses.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(
            found=f"repo={repo} ({' '.join(str(error).split())})", expected="NAME/MODEL", fix="set repo"
        ) from error
    files = files_of(folder)
    api = HfApi(endpoint=endpoint)
    sizes = {file: file.stat().st_size for file in files}
    width = max(len(file.name) for file in files)
    for file, size in sizes.items():
        print(f"{file.name:<{width}}  {size:>14,} bytes")
    whole = f"{len(files)} files, {sum(sizes.values()):,} bytes, to {api.endpoint}/{repo}"
    if is_dry_run:
        print(f"would send {whole} ({'private' if is_private else 'public'} if it is made now)")
        return
    address = _send(api, folder, repo, is_private=is_private, message=message)
    print(f"sent {whole}\n{address}")


def files_of(folder: Path) -> list[Path]:
    """The files that are sent, by name. Raises UserError for a folder that should not be published as it is."""
    if not folder.is_dir():
        raise UserError(found=f"no folder {folder}", expected="a model folder", fix="set model_dir")
    files = sorted(folder.iterdir())
    names = {file.name for file in files}
    missing = [name for name in (CONFIG, CARD) if name not in names]
    if not any(name.endswith(WEIGHTS) for name in names):
        missing.append(f"*{WEIGHTS}")
    strangers = [file.name for file in files if not file.is_file() or file.suffix not in PUBLISHED]
    if missing or strangers:
        raise UserError(
            found=f"{folder} "
            + "; ".join(
                f"{word} {', '.join(some)}" for word, some in (("without", missing), ("with", strangers)) if some
            ),
            expected="what `bert-lamb export`, `import`, or a fine-tuning's model/ holds",
            fix="set model_dir, or move what should not be published out of it",
        )
    if not isinstance(
        content := read_json(folder / CONFIG, expected="a model's configuration", fix="set model_dir"), dict
    ):
        raise UserError(
            found=f"{folder / CONFIG} with {type(content).__name__}", expected="an object", fix="set model_dir"
        )
    _check_contents(folder, files)
    return files


def _check_contents(folder: Path, files: list[Path]) -> None:
    """UserError for files that nobody could read who fetched them: no json, weights cut short, no vocabulary."""
    for file in files:
        if file.suffix == ".json":
            read_json(file, expected="json", fix="export the model again")
            if file.read_bytes().startswith(BYTE_ORDER_MARK):
                raise UserError(
                    found=f"{file} with a byte order mark",
                    expected="none",
                    fix="remove it: transformers cannot read it",
                )
    list_weights(folder, option="model_dir")
    if any((folder / name).is_file() for name in tokenizer.FILES):
        tokenizer.read_tokenizer(folder)


def _send(api: HfApi, folder: Path, repo: str, *, is_private: bool, message: str | None) -> str:
    """The address of the commit."""
    try:
        api.create_repo(repo, private=is_private, exist_ok=True)
        commit: Any = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message or f"{folder.resolve().name}, by bert-lamb push",
        )
    except Exception as error:  # among them those of the client's HTTP library, which is another with every year
        raise UserError(
            found=f"{api.endpoint}, which did not take {repo} ({' '.join(str(error).split())[:300]})",
            expected="a repository that your token may write to",
            fix="log in with `hf auth login`, or set HF_TOKEN; repo=NAME/MODEL under your own name",
        ) from error
    return str(commit.commit_url)
