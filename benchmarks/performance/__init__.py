"""How long things take: engines, the service, the page."""
