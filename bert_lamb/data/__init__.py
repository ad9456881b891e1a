"""From a manifest to micro-batches: sampler, masking, loader. Everything random is a function of what it belongs to."""
