"""The candle engine, pure: records of one partition in, absolute changes of the store and of memory out.

One step of a partition, inside one transaction whose first statement locked the fence:

1. `intake = read_batch(state, messages, …)` decodes, refuses and clamps; records are not read again.
   Markets in `intake.markets` that `state.markets` lacks are loaded now, and put there.
2. The store inserts `intake.trades`; `inserted = without_stored(intake.trades, keys)` are those that were not there yet.
3. `plan = prepare(state, intake, inserted, log_time=T, timing=timing)`: `plan.wants` is what memory lacks; the store loads it,
   and `state.admit(plan.wants, loaded)` takes in the open candles of markets whose candles had left memory.
4. `changes = decide(state, plan, loaded, now=now)` gives the rows and the records to write.
5. After the commit, and only then, `state.apply(changes)`; then `state.evict(limit)` keeps memory bounded.

A step without records (`read_batch(state, [], …)`) finalises by the clock and ends silent jobs; `due` says when one is
worth it. When the log lost what was next, `discontinuity` gives the changes of a step of their own.
"""
