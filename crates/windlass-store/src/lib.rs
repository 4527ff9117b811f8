//! The embedded store: blobs, leases, unpacked layers, pull records, collection and repair.
