"""The opener: a small function that a customer runs, and that opens the gate when it may."""
