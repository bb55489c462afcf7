"""Text in, packed batches out: sources, tokenizer, order, packing, masking, loader."""
