"""Model folders that others made, read whole or refused; see README.md."""
