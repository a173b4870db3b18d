"""The game: players, queries, a round, payoffs, evaluation."""
