"""The sockets notifyd owns, and the two transports on them."""
