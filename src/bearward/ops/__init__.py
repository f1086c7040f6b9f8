"""What the operator sees: metrics, log, the admin port, and what `run` prints. Only reads and listens."""
