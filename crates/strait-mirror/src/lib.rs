//! What to mirror: selection, naming, topics and their configuration.
