"""What travels in the log: every record of the three topics, and how it is written and read."""
