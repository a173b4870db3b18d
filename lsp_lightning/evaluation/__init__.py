"""Evaluations of a policy: held-out tasks in a run, win rates and pass@k after it."""
