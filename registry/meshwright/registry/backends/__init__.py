"""Tools that are not Python functions: services behind HTTP and gRPC, databases, agents."""
