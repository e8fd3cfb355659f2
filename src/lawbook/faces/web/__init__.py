"""The workbench: the book in a browser."""
