"""What transformers' run_mlm.py does to a corpus: datasets.map with the fast tokenizer, then group_texts, kept on disk.

    python scripts/bench/data_prep_peer.py CORPUS.jsonl VOCAB.txt OUTPUT_DIR LENGTH ...

A peer of data_prep.py, in a process of its own. The text is tokenized once, and grouped for each length; documents run
into each other, and there are no sentence pairs.
"""

import sys
from itertools import chain

import datasets
from transformers import BertTokenizerFast


def main() -> None:
    corpus, vocabulary, output_dir, *lengths = sys.argv[1:]
    datasets.disable_progress_bars()
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    raw = datasets.load_dataset("json", data_files=corpus, split="train", cache_dir=f"{output_dir}/cache")
    tokenized = raw.map(
        lambda rows: tokenizer(rows["text"], return_special_tokens_mask=True),
        batched=True,
        remove_columns=raw.column_names,
    )
    for length in map(int, lengths):

        def group_texts(rows, length=length):  # type: ignore[no-untyped-def]
            joined = {name: list(chain.from_iterable(rows[name])) for name in rows}
            total = len(joined["input_ids"]) // length * length
            return {name: [ids[i : i + length] for i in range(0, total, length)] for name, ids in joined.items()}

        tokenized.map(group_texts, batched=True).save_to_disk(f"{output_dir}/seq{length}")


if __name__ == "__main__":
    main()
