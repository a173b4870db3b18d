"""From a round to a gradient."""
