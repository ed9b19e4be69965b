"""What travels in the log: every record of the four topics, and how it is written and read."""
