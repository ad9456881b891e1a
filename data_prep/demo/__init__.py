"""The embedded default corpus and its questions, for `bert-lamb demo-data`."""
