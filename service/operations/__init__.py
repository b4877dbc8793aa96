"""What an operator looks after: artifacts, backups, retention, figures for Prometheus."""
