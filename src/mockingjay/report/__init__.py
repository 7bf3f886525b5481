"""What was found, set as tables, pictures and one page."""
