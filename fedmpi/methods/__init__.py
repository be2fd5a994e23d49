"""Every method, a folder a kind and a file a method."""
