"""Second opinions that share no code with the project."""
