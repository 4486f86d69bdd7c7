"""serstream hears how a call feels while it happens."""

__version__ = "0.1.0"
