"""A machine, or a cluster under any launcher, examined before hours are spent on it."""
