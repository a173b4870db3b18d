"""From words to token ids: prompts, chat turns, padding."""
