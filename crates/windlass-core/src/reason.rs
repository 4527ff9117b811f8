//! The one vocabulary of failure. Every error of every crate answers with a [`Reason`]; surfaces map only that.
//!
//! `class` is the stable word of our own output; [`Reason::waiting`] is the kubelet's word for the same thing;
//! [`Reason::retry`] says whether trying again can help; [`Reason::hint`] says what the operator does next.
//! Source of the waiting words: kubernetes `pkg/kubelet/images/types.go`.
//!
//! Invariants: `classes_are_unique_words`, `every_reason_has_a_hint`.

use std::fmt;

/// When trying again can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never without a change by somebody: the input or the image is wrong.
    Never,
    /// Later, with the same input: the registry, the network or the disk may recover.
    Later,
    /// With other credentials or rights.
    OtherCredentials,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident: $class:literal, $waiting:literal, $retry:ident, $exit:literal, $hint:literal;)+) => {
        /// Why an image operation failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The stable word of our own output, e.g. `digest-mismatch`.
            pub const fn class(self) -> &'static str {
                match self { $(Reason::$variant => $class,)+ }
            }

            /// The kubelet's waiting reason for the same thing.
            pub const fn waiting(self) -> &'static str {
                match self { $(Reason::$variant => $waiting,)+ }
            }

            /// Whether trying again can help.
            pub const fn retry(self) -> Retry {
                match self { $(Reason::$variant => Retry::$retry,)+ }
            }

            /// Exit status of a command that ends with this: 1 failed, 2 usage, 3 undecided, 130 interrupted.
            pub const fn exit_code(self) -> u8 {
                match self { $(Reason::$variant => $exit,)+ }
            }

            /// What to do next, one line without a full stop. Surfaces replace it where they know more.
            pub const fn hint(self) -> &'static str {
                match self { $(Reason::$variant => $hint,)+ }
            }
        }
    };
}

reasons! {
    /// The image name does not follow the grammar.
    InvalidReference: "invalid-reference", "InvalidImageName", Never, 2,
        "write the image as [host[:port]/]name[:tag][@sha256:...], in lower case, without a scheme";
    /// The registry does not have it, or does not admit to having it.
    NotFound: "not-found", "ErrImagePull", Never, 1,
        "check the spelling of repository and tag; a private image looks missing without credentials";
    /// The registry wants credentials and none were accepted.
    Unauthorized: "unauthorized", "ErrImagePull", OtherCredentials, 1,
        "add a pull secret or log in for this registry; `windlass secret` makes one";
    /// The credentials are good but lack the right to this repository.
    Denied: "denied", "ErrImagePull", OtherCredentials, 1,
        "grant the account the right to pull this repository, or use another secret";
    /// The registry asks us to slow down.
    RateLimited: "rate-limited", "ErrImagePull", Later, 3,
        "wait, log in for a higher limit, or use a mirror";
    /// No endpoint of the registry could be reached, or all of them failed.
    RegistryUnavailable: "registry-unavailable", "RegistryUnavailable", Later, 3,
        "check the name, the network and the registry; a mirror would bridge this";
    /// Nothing moved for too long.
    Timeout: "timeout", "ErrImagePull", Later, 3,
        "check the network to the registry, or raise the progress timeout";
    /// The TLS handshake or the certificate failed.
    Tls: "tls", "ErrImagePull", Never, 3,
        "add the registry's CA with --ca-file or in hosts.toml, or check the certificate's name and dates";
    /// The token realm is on a host that must not get credentials.
    RealmNotTrusted: "realm-not-trusted", "ErrImagePull", Never, 1,
        "if the realm is right, add its host to allowedRealms of this registry";
    /// What answered is not an image: a web page, an artifact, a chart.
    NotAnImage: "not-an-image", "ErrImagePull", Never, 1,
        "the reference names something that cannot run as a container";
    /// A media type that is not supported, schema 1 and encrypted layers among them.
    UnsupportedMediaType: "unsupported-media-type", "ErrImagePull", Never, 1,
        "build or push the image again with a current tool";
    /// The manifest, index or config breaks the rules of the format.
    BadManifest: "bad-manifest", "ErrImagePull", Never, 1,
        "the image is malformed: build and push it again";
    /// Content does not hash to its digest.
    DigestMismatch: "digest-mismatch", "ErrImagePull", Later, 1,
        "the registry or a proxy served wrong bytes; nothing was kept";
    /// Content is longer or shorter than its descriptor says.
    SizeMismatch: "size-mismatch", "ErrImagePull", Later, 1,
        "the registry or a proxy served wrong bytes; nothing was kept";
    /// The unpacked layer does not hash to the config's diff ID.
    DiffIdMismatch: "diffid-mismatch", "ErrImagePull", Never, 1,
        "the image's config and layers do not belong together: build and push it again";
    /// A part that the manifest names is not there.
    BlobMissing: "blob-missing", "ErrImagePull", Never, 1,
        "push the image again: the registry has lost a part of it";
    /// The index offers no platform that fits.
    NoMatchingPlatform: "no-matching-platform", "ErrImagePull", Never, 1,
        "build the image for this platform, or choose one with --platform";
    /// The compressed stream is damaged or unsupported.
    BadCompression: "bad-compression", "ErrImagePull", Never, 1,
        "the layer is damaged: build and push the image again";
    /// The archive breaks the rules of tar.
    BadArchive: "bad-archive", "ErrImagePull", Never, 1,
        "the layer is not a valid tar archive: build and push the image again";
    /// An entry would reach outside the root of the image.
    UnsafePath: "unsafe-path", "ErrImagePull", Never, 1,
        "do not use this image: an entry points outside its root";
    /// An entry of a kind that is not created.
    UnsupportedEntry: "unsupported-entry", "ErrImagePull", Never, 1,
        "the layer holds an entry that cannot be created; build it without that";
    /// A limit was passed; the message names it.
    LimitExceeded: "limit-exceeded", "ErrImagePull", Never, 1,
        "raise the named limit in the configuration if the image is meant to be this large";
    /// No space, inodes or quota left.
    NoSpace: "no-space", "ErrImagePull", Later, 1,
        "free space: `windlass gc --dry-run` shows what can go";
    /// The file system failed.
    IoError: "io-error", "ErrImagePull", Later, 1,
        "check the disk and the kernel's log, then run `windlass fsck`";
    /// Another process holds the store.
    StoreLocked: "store-locked", "ErrImagePull", Later, 1,
        "wait for the other process, or point --root elsewhere";
    /// The store was written by a newer version.
    StoreFormat: "store-format", "ErrImagePull", Never, 1,
        "use the newer windlass, or another --root";
    /// The caller gave up.
    Canceled: "canceled", "ErrImagePull", Later, 130,
        "run the command again; finished layers are kept";
    /// A secret or configuration file with credentials is malformed.
    InvalidCredentials: "invalid-credentials", "ErrImagePull", Never, 1,
        "repair the secret or file named above; `windlass secret` examines it";
    /// A configuration, manifest file or flag is wrong.
    InvalidConfig: "invalid-config", "ErrImagePull", Never, 2,
        "correct the named key or file";
    /// Policy Never and the image is absent, or this pod may not use it.
    NeverPull: "never-pull", "ErrImageNeverPull", Never, 1,
        "put the image on the node first, or use another imagePullPolicy";
    /// An earlier pull failed and its back-off has not ended.
    BackOff: "back-off", "ImagePullBackOff", Later, 1,
        "the next try comes by itself, within five minutes";
    /// The store could not say whether the image is there.
    InspectFailed: "inspect-failed", "ImageInspectError", Later, 1,
        "run `windlass fsck`";
    /// A required signature is missing or wrong.
    SignatureInvalid: "signature-invalid", "SignatureValidationFailed", Never, 1,
        "sign the image, or change the policy that asks for it";
    /// The image named is not in the store.
    ImageUnknown: "image-unknown", "ErrImagePull", Never, 1,
        "`windlass images` lists what is here";
    /// The kernel or the user's rights do not allow it.
    NotPermitted: "not-permitted", "ErrImagePull", Never, 1,
        "run it as root";
    /// Something still uses the object.
    InUse: "in-use", "ErrImagePull", Later, 1,
        "release what uses it first";
    /// The node daemon that was asked does not answer, or went away.
    DaemonUnavailable: "daemon-unavailable", "ErrImagePull", Later, 3,
        "start `windlass node`, or wait until it is back; `systemctl status windlass-node` says why it is not";
    /// The container runtime behind the node does not answer, or refuses.
    RuntimeUnavailable: "runtime-unavailable", "ErrImagePull", Later, 1,
        "check that containerd runs and that the configured socket is its own";
    /// A bug in windlass.
    Internal: "internal", "ErrImagePull", Later, 1,
        "please report this";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.class())
    }
}

/// An error and its causes in one line, outermost first; a cause that repeats what was said is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn classes_are_unique_words() {
        let classes: BTreeSet<&str> = Reason::ALL.iter().map(|r| r.class()).collect();
        assert_eq!(classes.len(), Reason::ALL.len());
        for class in classes {
            assert!(class.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{class}");
        }
    }

    #[test]
    fn a_cause_that_repeats_is_left_out() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Told {
            text: &'static str,
            #[source]
            cause: Option<Box<Told>>,
        }
        let told = |text, cause: Option<Told>| Told { text, cause: cause.map(Box::new) };
        let error = told("cannot open: denied", Some(told("denied", Some(told("by the kernel", None)))));
        assert_eq!(chain(&error), "cannot open: denied: by the kernel");
    }

    #[test]
    fn every_reason_has_a_hint() {
        for reason in Reason::ALL {
            assert!(!reason.hint().is_empty() && !reason.hint().ends_with('.'), "{reason}");
        }
    }
}
