"""The collector: takes in every trade of the tracked markets and publishes it."""
