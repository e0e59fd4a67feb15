"""One module for each step of the schema. A released one never changes."""
