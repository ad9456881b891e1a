"""Runs that are broken on purpose at exact moments, continued, and compared with undisturbed ones; see README.md."""
