"""BERT from transformers' modules, with losses as sums and the masked-LM head only where tokens are masked."""
