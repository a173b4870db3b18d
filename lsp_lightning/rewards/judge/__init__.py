"""A judge behind a server with OpenAI's chat protocol."""
