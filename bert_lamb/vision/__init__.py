"""Image classification on the one loop: the LAMB paper's second task. README.md has the files and decisions."""
