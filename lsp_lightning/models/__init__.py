"""A Hugging Face causal LM as a policy."""
