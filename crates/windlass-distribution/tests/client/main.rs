//! The client against a scripted registry: what it asks, what it takes, what it refuses.

mod auth;
mod extras;
mod faults;
mod mirrors;
mod pull;
mod push;
mod redirect;
mod renewal;
mod support;
mod tls;
mod web;
