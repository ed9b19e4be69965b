"""Archives of trades: how their lines are read, how the files are opened, what they become in the log."""
