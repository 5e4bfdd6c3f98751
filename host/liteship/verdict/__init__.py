"""What to ship, what changed, and whether a change may go in: pure functions of comparisons."""
