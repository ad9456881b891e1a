"""Write the fixtures of this folder with TensorFlow itself, which is no dependency of ours.

usage: python make_checkpoint.py        in an environment with tensorflow (written with 2.21), numpy and nothing else

Two checkpoints of the same weights: bert_model.ckpt as Google's BERT has it, saved by variable names (v1 Saver) with
the optimizer's slots and global_step; objects.ckpt as tf.train.Checkpoint saves, by paths of objects.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 12,
    "initializer_range": 0.02,
    "intermediate_size": 20,
    "max_position_embeddings": 17,
    "num_attention_heads": 3,
    "num_hidden_layers": 1,
    "type_vocab_size": 2,
    "vocab_size": 41,
}
ENTRIES = [
    *("[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{letter}" for letter in "abcdefghi"),
]


def shapes() -> dict[str, tuple[int, ...]]:
    """Name in the checkpoint -> size, as google-research/bert makes its variables; a kernel is [in, out]."""
    hidden, inner, vocab = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    layer = "bert/encoder/layer_0"
    dense = {f"{layer}/attention/self/{part}": (hidden, hidden) for part in ("query", "key", "value")}
    dense |= {f"{layer}/attention/output/dense": (hidden, hidden)}
    dense |= {f"{layer}/intermediate/dense": (hidden, inner), f"{layer}/output/dense": (inner, hidden)}
    dense |= {"bert/pooler/dense": (hidden, hidden), "cls/predictions/transform/dense": (hidden, hidden)}
    norms = ["bert/embeddings", f"{layer}/attention/output", f"{layer}/output", "cls/predictions/transform"]
    sizes: dict[str, tuple[int, ...]] = {
        "bert/embeddings/word_embeddings": (vocab, hidden),
        "bert/embeddings/position_embeddings": (CONFIG["max_position_embeddings"], hidden),
        "bert/embeddings/token_type_embeddings": (CONFIG["type_vocab_size"], hidden),
        "cls/predictions/output_bias": (vocab,),
        "cls/seq_relationship/output_weights": (2, hidden),
        "cls/seq_relationship/output_bias": (2,),
    }
    for name, (inputs, outputs) in dense.items():
        sizes |= {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}
    for name in norms:
        sizes |= {f"{name}/LayerNorm/{part}": (hidden,) for part in ("beta", "gamma")}
    return sizes


def values() -> dict[str, np.ndarray]:
    """Name -> fp32 values from a seed, in the order of the names."""
    rng = np.random.Generator(np.random.PCG64(1810_04805))
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sorted(shapes().items())}


def main() -> None:
    import tensorflow as tf

    weights = values()
    with tf.Graph().as_default():
        variables = {name: tf.compat.v1.get_variable(name, initializer=value) for name, value in weights.items()}
        for name, value in weights.items():
            for slot in ("adam_m", "adam_v"):
                tf.compat.v1.get_variable(f"{name}/{slot}", initializer=np.zeros_like(value[..., :1]))
        tf.compat.v1.get_variable("global_step", initializer=np.int64(1000))
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver().save(session, str(HERE / "bert_model.ckpt"), write_meta_graph=False)
        del variables
    names = {name.replace("/", "_"): tf.Variable(value) for name, value in weights.items()}
    tf.train.Checkpoint(**names).write(str(HERE / "objects.ckpt"))
    (HERE / "checkpoint").unlink(missing_ok=True)
    (HERE / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (HERE / "vocab.txt").write_text("".join(f"{entry}\n" for entry in ENTRIES))


if __name__ == "__main__":
    main()
