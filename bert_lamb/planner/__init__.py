"""Memory, time, energy and cost of a run before it is started, by arithmetic, and what published runs say of it."""
