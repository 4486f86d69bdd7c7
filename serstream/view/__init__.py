"""What people look at; every view is a subscriber of the feed."""
