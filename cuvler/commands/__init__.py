"""The sub-commands: each parses, calls one function of its stage, and writes."""
