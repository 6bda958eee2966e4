"""Pure translations between Suture's findings and other people's formats."""
