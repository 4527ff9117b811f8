//! The OCI distribution HTTP client.
