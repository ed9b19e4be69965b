"""Domain types: markets, trades, timeframes, candles and coverage, as values that refuse the impossible."""
