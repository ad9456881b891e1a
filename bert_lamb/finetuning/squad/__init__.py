"""Stations after export: SQuAD v1.1 examples -> windows -> fine-tuned model -> predictions -> exact match and F1."""
