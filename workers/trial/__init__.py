"""One attempt: its steps, in the order in which they are done."""
