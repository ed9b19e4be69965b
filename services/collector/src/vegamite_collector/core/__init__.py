"""The collector's rules as pure functions and values: nothing here waits, reads a clock, logs or draws a random number."""
