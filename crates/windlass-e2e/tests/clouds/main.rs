//! Logins of Amazon, Google and Azure, from every identity, through the real program: the provider that a kubelet runs,
//! and pulls with the clouds that are built in.
//!
//! The clouds are those of the test kit: they verify what the real ones verify, and behind them is a registry that
//! accepts exactly the logins that were given out.

mod choice;
mod daemon;
mod pods;
mod provider;
mod pull;
mod scene;
mod shapes;
mod trouble;
