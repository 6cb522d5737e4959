"""What accepts clients: WebSocket, device link, HTTP."""
