"""Which files of a model folder hold the weights: one file, or the shards that an index names."""

from pathlib import Path

from bert_lamb.checkpoint.folder.files import read_json
from bert_lamb.checkpoint.folder.stored import FETCH, Stored, list_safetensors, list_torch_file
from bert_lamb.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_SINGLE, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
OTHER_LIBRARIES = ("tf_model.h5", "flax_model.msgpack")
OTHER_TRAINERS = ("*.ckpt.index", "*.pt", "*.ckpt", "*.pth")


def weight_files(folder: Path, *, option: str) -> list[Path]:
    """model.safetensors, else its shards by their index, complete or refused; else the same of pytorch_model.bin.

    option: the key that names the folder, for messages.
    """
    for single, index in ((SINGLE, INDEX), (TORCH_SINGLE, TORCH_INDEX)):
        if (folder / single).exists():
            return [folder / single]
        if (folder / index).exists():
            files = sorted({folder / name for name in _read_index(folder / index).values()})
            for file in files:
                if not file.is_file():
                    raise UserError(found=f"no file {file}", expected=f"it, as {index} names it", fix=FETCH)
            return files
    raise _refusal_of_folder(folder, option)


def list_weights(folder: Path, *, option: str) -> list[Stored]:
    """Every tensor of the folder's weight files; with an index, each must be in the file that the index names."""
    files = weight_files(folder, option=option)
    is_safe = (folder / SINGLE).exists() or (folder / INDEX).exists()
    found = [one for file in files for one in (list_safetensors if is_safe else list_torch_file)(file)]
    if files not in ([folder / SINGLE], [folder / TORCH_SINGLE]):
        _check_index(found, folder / (INDEX if is_safe else TORCH_INDEX))
    return found


def _check_index(found: list[Stored], file: Path) -> None:
    """Refuse shards and an index that do not name the same weights in the same files."""
    promised = _read_index(file)
    there = {one.key: one.file.name for one in found}
    for key, name in promised.items():
        if there.get(key) != name:
            raise UserError(
                found=f"{file.with_name(name)} without {key}",
                expected=f"it, as {file.name} says",
                fix="fetch both again",
            )
    for key, name in there.items():
        if key not in promised:
            raise UserError(
                found=f"{key} in {file.with_name(name)}, which {file.name} does not name",
                expected="the same weights in both",
                fix="fetch both again",
            )


def _read_index(file: Path) -> dict[str, str]:
    """Key -> file name of a sharded model."""
    content = read_json(file, expected="the index of the shards as json", fix=FETCH)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    is_sound = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
    if not is_sound or not weight_map or any(Path(name).name != name for name in weight_map.values()):
        raise UserError(found=f"{file} without a weight_map of file names", expected="one", fix=FETCH)
    return dict(weight_map)


def _refusal_of_folder(folder: Path, option: str) -> UserError:
    expected = f"the weights in {SINGLE} or {TORCH_SINGLE}"
    of_library = [name for name in OTHER_LIBRARIES if (folder / name).is_file()]
    if of_library:
        return UserError(
            found=f"{of_library[0]} without {SINGLE} in {folder}",
            expected=expected,
            fix="convert it with transformers 4 and the library that wrote it: BertForPreTraining.from_pretrained("
            f"'{folder}', {'from_tf' if of_library[0] == OTHER_LIBRARIES[0] else 'from_flax'}=True)"
            f".save_pretrained('NEW'), copy the tokenizer's files to NEW and set {option}=NEW",
        )
    of_trainer = sorted(path for pattern in OTHER_TRAINERS for path in folder.glob(pattern))
    if of_trainer:
        return UserError(
            found=f"{of_trainer[0].name} without {SINGLE} in {folder}",
            expected=expected,
            fix=f"convert it: bert-lamb import source={of_trainer[0]} output_dir=NEW, and set {option}=NEW",
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    return UserError(
        found=f"no {SINGLE} in {folder}" + (f", but {', '.join(others[:3])}" if others else ""),
        expected=expected,
        fix=f"set {option} to an export, or to a folder with a Hugging Face BERT",
    )
