"""notifyd's wire protocol, sans-IO: bytes to frames to messages to session rules. No socket, no clock, no trio."""
