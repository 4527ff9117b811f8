//! Credential sources that do IO: configuration files and helpers.
