"""How good a policy is: scores on held-out tasks."""
