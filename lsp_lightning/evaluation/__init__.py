"""What a policy is worth: held-out scores."""
