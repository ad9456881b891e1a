"""The schema of every command: each name, its type, its one default, its unit, and the checks across fields."""
