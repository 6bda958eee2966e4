"""What runs: one flow a file, each reading like the story it tells."""
