"""Pure decisions: no socket, no clock, no trio; time is an argument."""
