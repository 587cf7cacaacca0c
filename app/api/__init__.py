"""The front doors: translation between HTTP or WebSocket and the services. No engine is named
here and nothing blocks."""
