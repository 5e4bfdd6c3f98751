"""The part of liteship that runs on the board."""

__version__ = "0.1.0"
