"""Makes models."""
