"""How fast an engine is: measured in as many processes as its sweep's constraints need, and judged by them."""
