"""The data card: README.md and its plots in a folder of shards, for anyone who finds the folder (after station 4)."""

from data_prep.card.card import write_card

__all__ = ["write_card"]
