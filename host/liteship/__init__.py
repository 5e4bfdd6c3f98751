"""liteship: train, compress, deploy over SSH and measure image classifiers on ARM boards."""

__version__ = "0.1.0"
