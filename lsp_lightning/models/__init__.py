"""Any Hugging Face causal LM as a policy: loading, adapters, log-probs, the frozen reference."""
