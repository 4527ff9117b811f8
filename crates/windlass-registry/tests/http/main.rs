//! The registry over real HTTP.

mod connections;
mod endpoints;
mod support;
mod tenants;
