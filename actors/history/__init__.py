"""Whether the database still has the history that was acknowledged to clients."""
