//! Tests against real clients and servers.
