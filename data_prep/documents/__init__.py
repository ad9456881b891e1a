"""Stations 1 and 2: text -> clean text -> sentences -> token ids on disk, and the vocabulary."""
