"""The whole story of a sweep for somebody who was not there."""
