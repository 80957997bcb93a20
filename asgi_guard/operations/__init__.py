"""What runs beside requests: the writer of the log, metrics, readiness, and leaving without losing a request."""
