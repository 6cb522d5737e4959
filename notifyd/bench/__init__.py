"""A load generator for any notifyd: what `notifyd bench` runs.

It imports the protocol alone: what is measured is another process, and a node's own parts must not slow the load.
"""
