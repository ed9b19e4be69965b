"""The aggregator: folds trades into exact candles, and keeps both."""
