"""The daemon: threads, sockets, clocks and signals."""
