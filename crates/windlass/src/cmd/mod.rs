//! The commands, one file each: arguments, the request they stand for, the call, the report.

mod completion;
mod config;
mod credential_provider;
mod credentials;
mod demo;
mod ensure;
mod fsck;
mod gc;
mod images;
mod inspect;
mod load;
mod many;
mod mount;
mod node;
mod pin;
mod pull;
mod rmi;
mod save;
mod secret;
mod status;
mod tag;
mod transfer;
mod unpack;
mod version;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows a pod, a registry and a wrong secret on this machine; leaves nothing behind.
    Demo,
    /// Makes images present: resolve, fetch, verify, unpack. Prints the image IDs.
    Pull(pull::Args),
    /// Does what the kubelet would do for every container of the pods in manifests.
    Ensure(ensure::Args),
    /// Serves images to a kubelet and snapshots to containerd, on one socket, until it is told to stop.
    Node(node::Args),
    /// Shows what the node daemon does: pulls under way, failures, back-off, disk.
    Status(status::Args),
    /// Lists the images in the store.
    #[command(alias = "img")]
    Images(images::Args),
    /// Shows everything the store knows about images.
    #[command(alias = "inspecti")]
    Inspect(inspect::Args),
    /// Removes names, and images with their last name.
    Rmi(rmi::Args),
    /// Removes what nothing needs, and images by age or for space; explains each.
    Gc(gc::Args),
    /// Checks that everything in the store is whole.
    Fsck(fsck::Args),
    /// Keeps images from being collected or removed.
    Pin(pin::PinArgs),
    /// Takes a pin back.
    Unpin(pin::UnpinArgs),
    /// Writes images out, as an OCI layout or a docker archive.
    Save(save::Args),
    /// Reads images in, from an OCI layout or a docker archive.
    Load(load::Args),
    /// Mounts an image's root file system, read-only.
    Mount(mount::MountArgs),
    /// Unmounts it.
    Umount(mount::UmountArgs),
    /// Writes the root file system of an image into a new directory.
    Unpack(unpack::Args),
    /// Brings an image of the store to a registry. Prints its digest there.
    Push(transfer::PushArgs),
    /// Brings an image from one registry to another. Prints its digest there.
    Copy(transfer::CopyArgs),
    /// Gives an image of the store more names.
    Tag(tag::Args),
    /// Shows which credentials would be tried for an image, in order, and where they come from.
    Credentials(credentials::Args),
    /// Makes and examines pull secrets.
    Secret(secret::Args),
    /// Answers a kubelet that asks for a cloud's registry login, as the plugins of the clouds do.
    CredentialProvider(credential_provider::Args),
    /// Shows or checks the configuration.
    Config(config::Args),
    /// Prints the completion script of a shell.
    Completion(completion::Args),
    /// Prints the version.
    Version,
}

impl Command {
    /// Whether the command neither reads a configuration nor logs, and starts at once.
    pub(crate) fn starts_bare(&self) -> bool {
        matches!(self, Command::CredentialProvider(_))
    }

    /// Whether the command must work with a broken configuration too.
    pub(crate) fn needs_configuration(&self) -> bool {
        match self {
            Command::Pull(_)
            | Command::Ensure(_)
            | Command::Node(_)
            | Command::Status(_)
            | Command::Gc(_)
            | Command::Fsck(_)
            | Command::Save(_)
            | Command::Load(_)
            | Command::Mount(_)
            | Command::Umount(_)
            | Command::Unpack(_)
            | Command::Push(_)
            | Command::Copy(_)
            | Command::Credentials(_)
            | Command::Images(_)
            | Command::Inspect(_)
            | Command::Rmi(_)
            | Command::Pin(_)
            | Command::Unpin(_)
            | Command::Tag(_) => true,
            Command::Demo
            | Command::Secret(_)
            | Command::CredentialProvider(_)
            | Command::Config(_)
            | Command::Completion(_)
            | Command::Version => false,
        }
    }
}

/// Does it.
pub(crate) fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Demo => demo::run(session),
        Command::Pull(args) => pull::run(&args, session),
        Command::Ensure(args) => ensure::run(&args, session),
        Command::Node(args) => node::run(&args, session),
        Command::Status(args) => status::run(&args, session),
        Command::Gc(args) => gc::run(&args, session),
        Command::Fsck(args) => fsck::run(&args, session),
        Command::Save(args) => save::run(&args, session),
        Command::Load(args) => load::run(&args, session),
        Command::Mount(args) => mount::mount(&args, session),
        Command::Umount(args) => mount::umount(&args, session),
        Command::Unpack(args) => unpack::run(&args, session),
        Command::Push(args) => transfer::push(&args, session),
        Command::Copy(args) => transfer::copy(&args, session),
        Command::Images(args) => images::run(&args, session),
        Command::Inspect(args) => inspect::run(&args, session),
        Command::Rmi(args) => rmi::run(&args, session),
        Command::Pin(args) => pin::pin(&args, session),
        Command::Unpin(args) => pin::unpin(&args, session),
        Command::Tag(args) => tag::run(&args, session),
        Command::Credentials(args) => credentials::run(&args, session),
        Command::Secret(args) => secret::run(args, session),
        Command::CredentialProvider(args) => credential_provider::run(&args, session),
        Command::Config(args) => config::run(args, session),
        Command::Completion(args) => completion::run(&args),
        Command::Version => version::run(session),
    }
}
