"""The game: players, sources of queries, one round, and the Challenger's objectives."""
