"""The candle engine, pure: records of one partition in, absolute changes of the store and of memory out.

One step of a partition, inside one transaction whose first statement locked the fence:

1. `intake = read_batch(state, messages)` decodes, refuses and clamps; nothing else is read from the records later.
2. The store inserts `intake.trades`; `inserted = only_inserted(intake.trades, keys)` are those that were not there yet.
3. `wants = needed(state, intake, inserted, log_time=T, timing=timing)` says what memory lacks; the store loads it.
4. `changes = decide(state, intake, inserted, loaded, log_time=T, now=now, timing=timing)` gives rows and records to write.
5. After the commit, and only then, `state.apply(changes)`.

A step without records (`read_batch(state, [])`) finalises by the clock and ends silent jobs; `due` says when one is worth it.
"""
