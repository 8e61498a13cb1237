"""Raft over asyncio streams: a replicated key-value store that is small enough to read. README.md says how to run it.

messages   what goes over the wire, and the frames it goes in
node       the consensus itself, without I/O: messages and time in, messages and committed entries out
storage    term, vote and log, durable: in a file, or in memory that outlives the node
store      the state machine: keys, values, and the sessions by which a retried request is applied once
server     a node on asyncio streams; client is its other end
check      whether a history of requests and answers is linearizable
bugs       three mistakes, planted
"""
