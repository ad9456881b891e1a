"""Tables with a column of text: JSON lines, Parquet, Arrow. null is an empty text."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bert_lamb.errors import UserError
from data_prep.sources.columns import no_such_column, text_of, without_surrogates
from data_prep.sources.files import cut_behind, cut_file, find_files, is_packed, read_lines, whole_file
from data_prep.sources.source import Document, Source, Stretch

ROWS_PER_BATCH = 1024
BLANK = " \t\r\x1a"  # a line of these is none; with 0x1a programs of DOS closed a text
UNSUPPORTED = re.compile(r"decrypt|encrypted|not supported|[Uu]nsupported")  # said of sound files


class JsonLines:
    """Kind `jsonl`: one object a line. Key: the file and the byte at which the line begins."""

    suffixes = (".jsonl", ".json", ".ndjson")

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        find_cut = cut_behind(re.compile(rb"\n"), longest_match=1)
        for key, path in find_files(source, suffixes=self.suffixes):
            if is_packed(path):
                yield whole_file(key, path)
            else:
                yield from cut_file(key, path, stretch_bytes=stretch_bytes, find_cut=find_cut)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        for offset, line in read_lines(stretch, may_hold_nul=True):
            if not line.strip(BLANK):
                continue
            place = f"the line at byte {offset} of {stretch.path}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:  # ValueError: also integers of thousands of digits
                raise _no_object(f"{error} in {place}", line) from error
            if isinstance(record, list):
                raise _no_object(f"an array in {place}", line)
            if not isinstance(record, dict) or source.text_column not in record:
                members = sorted(record) if isinstance(record, dict) else type(record).__name__
                raise no_such_column(source, members, place)
            text = text_of(record[source.text_column], source, place)
            yield Document(f"{stretch.key}#{offset}", without_surrogates(text, place))


def _no_object(found: str, line: str) -> UserError:
    """What is said of a line that is no JSON object, and of what looks like a part of JSON over several lines."""
    text = line.strip()
    fix = "correct the file"
    if text.startswith("[") or text.endswith(("},", "{", "[")):
        found = f"{found}, as in a JSON array or an object over several lines"
        fix = "write one object a line (jq -c '.[]' takes an array apart, jq -c . puts an object on one line)"
    return UserError(found=found, expected="one JSON object a line", fix=fix)


class Parquet:
    """Kind `parquet`. Key: the file and the row. A stretch is a run of row groups."""

    suffixes = (".parquet",)

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        import pyarrow.parquet as pq

        for key, path in find_files(source, suffixes=self.suffixes):
            with _arrow_errors(path, "Parquet"), pq.ParquetFile(path) as file:
                _require_column(source, file.schema_arrow.names, path)
                column = file.schema_arrow.names.index(source.text_column)
                metadata = file.metadata
                sizes = [
                    metadata.row_group(group).column(column).total_compressed_size
                    if metadata.num_columns == len(file.schema_arrow.names)
                    else metadata.row_group(group).total_byte_size
                    for group in range(metadata.num_row_groups)
                ]
            yield from _runs(key, path, sizes, stretch_bytes)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        import pyarrow.parquet as pq

        with _arrow_errors(Path(stretch.path), "Parquet"), pq.ParquetFile(stretch.path) as file:
            number = sum(file.metadata.row_group(group).num_rows for group in range(stretch.start))
            groups = list(range(stretch.start, stretch.stop))
            for batch in file.iter_batches(ROWS_PER_BATCH, row_groups=groups, columns=[source.text_column]):
                for text in batch.column(0).to_pylist():
                    place = f"{stretch.path}, row {number}"
                    yield Document(f"{stretch.key}#{number}", text_of(text, source, place))
                    number += 1


class Arrow:
    """Kind `arrow`: Arrow IPC files, and the streams that `datasets` keeps. Key: the file and the row."""

    suffixes = (".arrow", ".feather")

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        for key, path in find_files(source, suffixes=self.suffixes):
            with _arrow_errors(path, "Arrow"):
                file = _open_arrow_file(path)
            if file is None:
                yield whole_file(key, path)
                continue
            _require_column(source, file.schema.names, path)
            num_batches = max(1, file.num_record_batches)
            yield from _runs(key, path, [path.stat().st_size // num_batches] * file.num_record_batches, stretch_bytes)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        import pyarrow as pa

        path = Path(stretch.path)
        with _arrow_errors(path, "Arrow"):
            file = _open_arrow_file(path)
            number = 0
            if file is None:
                batches = pa.ipc.open_stream(pa.memory_map(str(path)))
                _require_column(source, batches.schema.names, path)
            else:
                number = sum(file.get_batch(index).num_rows for index in range(stretch.start))
                batches = (file.get_batch(index) for index in range(stretch.start, stretch.stop))
            for batch in batches:
                batch.validate(full=True)  # mapped as it is: offsets that lead outside would end the process
                for text in batch.column(source.text_column):
                    place = f"{path}, row {number}"
                    yield Document(f"{stretch.key}#{number}", text_of(text.as_py(), source, place))
                    number += 1


def _open_arrow_file(path: Path):  # type: ignore[no-untyped-def]
    """The file's reader, or None where it is a stream."""
    import pyarrow as pa

    with path.open("rb") as stream:
        if stream.read(6) != b"ARROW1":
            return None
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _runs(key: str, path: Path, sizes: list[int], stretch_bytes: int) -> Iterator[Stretch]:
    """Runs of row groups (or batches) that hold `stretch_bytes` or more."""
    start, num_bytes = 0, 0
    for index, size in enumerate(sizes):
        num_bytes += size
        if num_bytes >= stretch_bytes or index == len(sizes) - 1:
            is_whole = start == 0 and index == len(sizes) - 1
            yield Stretch(key, str(path), start, index + 1, num_bytes, path.stat().st_size, is_whole)
            start, num_bytes = index + 1, 0


def _require_column(source: Source, names: list[str], path: Path) -> None:
    if source.text_column not in names:
        raise no_such_column(source, names, str(path))


@contextmanager
def _arrow_errors(path: Path, form: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, pa.ArrowNotImplementedError) or UNSUPPORTED.search(reason):
            raise UserError(
                found=f"{path}, of a form of {form} that is not supported ({reason})",
                expected=f"a {form} file that pyarrow reads without a key",
                fix="write it again without encryption, with another compression (such as zstd)",
            ) from error
        raise UserError(
            found=f"{path} that cannot be read as {form} ({reason})", expected=f"a {form} file", fix="fetch it again"
        ) from error
