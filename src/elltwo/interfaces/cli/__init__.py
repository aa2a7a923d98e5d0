"""The command line: one file for each command; what they share is in `shared`."""
