"""Services for the other packages: memory, worker processes, HTTP, prefetching, metric means."""
