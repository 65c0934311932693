"""The store between desk, station and command line: see store.py for how it is opened, records.py for what is in it."""
