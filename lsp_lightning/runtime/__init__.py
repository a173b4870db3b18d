"""Services for the other rooms: memory, worker processes, HTTP, background work, metric means."""
