//! The engine: from a reference, or a pod's manifest, to verified images in the store.
//!
//! Start at [`Engine`]; [`workload::read`] turns Kubernetes manifests into what [`Engine::ensure`] takes. Every
//! surface (command line, node daemon, cluster parts) asks this one value, so none of them has a second path.
//! `pull.rs` is the story of one pull, from string to disk; the rest is one file per step of it.
#![forbid(unsafe_code)]

mod archive;
mod attempt;
mod board;
mod engine;
mod ensure;
mod error;
pub mod events;
mod flight;
mod image_size;
mod layers;
mod load;
mod origin;
mod pipe;
mod pull;
mod pump;
mod recompress;
mod request;
mod resolve;
mod save;
mod slots;
mod supply;
mod transfer;
mod unpack;
mod uptodate;
pub mod workload;

pub use archive::ImageSource;
pub use attempt::{Accepted, Attempt, Attempts};
pub use board::{Board, BoardState, Ending, LayerRow, PastPull, Phase, PhaseTimes, PullState, RowState};
pub use engine::{BackedOff, Engine, EngineConfig};
pub use error::PullError;
pub use image_size::ImageLimits;
pub use load::LoadRequest;
pub use recompress::{Recompress, Recompressed};
pub use request::{
    Action, ContainerReport, Credentials, EnsureCredentials, EnsureReport, EnsureRequest, Failure, PullOptions,
    PullReport, PullRequest, StrictPlatform, Wait,
};
pub use save::{SaveFormat, SaveReport, SaveRequest};
pub use slots::TransferLimits;
pub use transfer::{CopyRequest, Platforms, PushRequest, TransferReport};
pub use unpack::{UnpackReport, UnpackRequest, UnpackedFrom};
