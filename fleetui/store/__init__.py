"""The store between desk, station and command line: store.py opens it, records.py is what is in it."""
