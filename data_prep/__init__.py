"""From raw text to shards. Of our own code it imports bert_lamb.shards, bert_lamb.errors, bert_lamb.progress."""
