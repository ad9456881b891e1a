"""Stations 3 and 4: token ids on disk -> the documents that are used -> instances -> equal shards."""
