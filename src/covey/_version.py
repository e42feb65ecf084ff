"""The version, read by the build and by `covey --version`."""

__version__ = "0.1.0"
