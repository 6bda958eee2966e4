"""Pages for people, self-contained: no script, no remote asset."""
