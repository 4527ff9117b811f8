//! HTTP/1.1 by hand: what the misbehaving servers of this crate share. Nothing stands between them and the socket.

mod ask;
mod halt;
mod listener;
mod message;
mod reply;

#[cfg(test)]
pub(crate) use ask::Answer;
pub(crate) use ask::ask;
pub(crate) use halt::Halt;
pub(crate) use listener::{Bound, Listener};
pub(crate) use message::{Message, tls_server};
pub use reply::Reply;
pub(crate) use reply::{End, Length};
