"""BERT pretraining with LAMB, exact under DeepSpeed ZeRO: raw text to SQuAD score.

Importing this package imports nothing heavy; each command imports what it needs when it runs.
"""

__version__ = "0.2.0"
