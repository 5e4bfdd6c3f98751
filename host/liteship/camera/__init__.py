"""The camera of a target: what it is asked for, following it, what it did."""
