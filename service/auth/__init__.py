"""Who may do what: tokens, projects, scopes, limits of requests, the audit record."""
