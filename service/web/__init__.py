"""What the page is made of: templates, its own static files, and vendored libraries."""
