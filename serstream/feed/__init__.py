"""The emotion feed: message schema, publisher and the client that other programs import."""
