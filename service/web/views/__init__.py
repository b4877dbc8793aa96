"""What each page of the web interface shows, gathered in one read. Templates decide only how it looks."""
