"""From raw text to shards; of our own code it imports only bert_lamb.shards, bert_lamb.errors
and bert_lamb.progress.
"""
