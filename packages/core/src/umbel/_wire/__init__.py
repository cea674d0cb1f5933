"""What crosses a socket, as bytes."""
