"""The third mode: what a control-plane event tells of is read again at once, and closed."""
