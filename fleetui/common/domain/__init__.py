"""Values, state tables, the clock, errors and the filter language. No I/O, no threads."""
