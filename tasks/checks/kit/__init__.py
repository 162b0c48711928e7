"""What checks are made of: the interface, HTTP, load, looks, assertions, OpenAPI, schemas, statistics."""
