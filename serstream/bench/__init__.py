"""What the daemon can bear, measured on the machine at hand: a load, a real daemon, a real subscriber."""
