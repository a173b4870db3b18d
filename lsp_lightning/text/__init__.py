"""Text and token ids: the prompts, chat turns as token ids, padded batches."""
