"""A report of runs: one HTML file that opens offline, with curves, verdicts and the transcripts."""
