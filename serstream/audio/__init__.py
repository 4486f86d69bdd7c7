"""Sound in: files, microphones, resampling."""
