"""What checks are made of: the interface, HTTP, load, assertions, OpenAPI, schemas, statistics."""
