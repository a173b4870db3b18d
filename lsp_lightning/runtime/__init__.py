"""What everything leans on: memory, processes, HTTP, background work."""
