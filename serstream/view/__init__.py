"""What people look at: the live view, reports, verdicts, pictures and status."""
