"""Who a client is (tokens) and what it may do (permissions)."""
