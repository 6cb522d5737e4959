"""A load generator for any notifyd: what `notifyd bench` runs.

It imports nothing of a node: what is measured is another process, and a node's own parts must not slow the load. The
load processes (`worker` and what it imports) know the protocol alone.
"""
