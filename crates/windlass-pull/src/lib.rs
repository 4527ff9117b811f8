//! The engine: ensure and pull, single-flight, progress.
