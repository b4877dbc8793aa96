"""docker-compose.yml, brought up by Linux namespaces instead of an engine: `deploy/try.sh`."""
