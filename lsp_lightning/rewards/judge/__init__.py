"""A judge model on an OpenAI-compatible server."""
