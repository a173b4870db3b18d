"""The comparisons of the paper, played again: arms, their runs, their scores and what they say."""
