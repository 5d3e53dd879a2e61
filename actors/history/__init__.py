"""Whether the database still has the history that was told to clients."""
