//! What can be wrong with a pull secret, in words.

use std::fmt;

use crate::dockerconfig::{DecodeError, EntryError};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It works, and may surprise.
    Note,
    /// A part of it does nothing, or does more than meant.
    Warning,
    /// The API server refuses it, or a kubelet cannot use it.
    Error,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The `auths` key concerned, or empty for the whole.
    pub entry: String,
    /// What it is.
    pub kind: ProblemKind,
}

impl Problem {
    pub(super) fn of_document(kind: ProblemKind) -> Problem {
        Problem { entry: String::new(), kind }
    }

    pub(super) fn of_entry(entry: &str, kind: ProblemKind) -> Problem {
        Problem { entry: entry.to_owned(), kind }
    }

    /// The problem of a manifest whose `data` value is not base64 at all; found by whoever reads the manifest.
    pub fn not_base64() -> Problem {
        Problem::of_document(ProblemKind::NotBase64)
    }

    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.kind.severity()
    }

    /// What to do about it, one line without a full stop.
    pub const fn hint(&self) -> &'static str {
        self.kind.hint()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entry.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{:?}: {}", self.entry, self.kind) }
    }
}

macro_rules! problems {
    ($($(#[$doc:meta])+ $variant:ident $(($inner:ident: $ty:ty))? $({ $($field:ident: $fty:ty),+ })?
        => $severity:ident, $text:expr, $hint:literal;)+) => {
        /// The kinds of problems.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $($(#[$doc])+ $variant $(($ty))? $({ $(#[doc = "The detail named in the text."] $field: $fty),+ })?,)+
        }

        impl ProblemKind {
            /// How bad it is.
            pub const fn severity(&self) -> Severity {
                match self { $(ProblemKind::$variant { .. } => Severity::$severity,)+ }
            }

            /// What to do about it.
            pub const fn hint(&self) -> &'static str {
                match self { $(ProblemKind::$variant { .. } => $hint,)+ }
            }
        }

        impl fmt::Display for ProblemKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(ProblemKind::$variant $(($inner))? $({ $($field),+ })? => {
                    write!(f, "{}", $text)
                })+ }
            }
        }
    };
}

problems! {
    /// A secret of a type that holds no registry credentials.
    OtherType { r#type: String } => Error,
        format!("secrets of type {:?} are not used for pulling images", r#type),
        "use the type kubernetes.io/dockerconfigjson";
    /// The key of the type is missing.
    MissingKey { want: &'static str, found: Option<&'static str> } => Error,
        match found {
            Some(found) => format!("data[{want}] is missing, and {found} belongs to the other type"),
            None => format!("data[{want}] is missing"),
        },
        "put the docker configuration under the key that belongs to the type";
    /// A data key with characters that it may not have.
    BadDataKey { field: String } => Error,
        format!("{field:?} is no valid key"),
        "keys consist of letters, digits, hyphen, underscore and dot";
    /// More than 1 MiB.
    TooLarge => Error, "the data is larger than 1 MiB",
        "keep only the entries that are needed";
    /// The manifest's value is not base64 (kubectl: "no objects passed to create").
    NotBase64 => Error, "the value under data is not base64; kubectl reports \"no objects passed to create\"",
        "encode the file in one piece (base64 -w0), or put the text under stringData";
    /// Base64 inside of the base64 that manifests need anyway.
    StillBase64 => Error,
        "the value is base64 once too often; the API server reports \"data[.dockerconfigjson]: invalid value\"",
        "encode the file once under data, or put its text under stringData";
    /// The document cannot be read.
    Undecodable(error: DecodeError) => Error, error.to_string(),
        "the value must be the text of a docker config.json; `docker login` or `windlass secret` writes one";
    /// Legacy layout under the new key.
    LegacyLayout => Error, "the entries are not under \"auths\", so none of them is used",
        "put the entries under \"auths\", or use the type kubernetes.io/dockercfg";
    /// New layout under the legacy key.
    NewLayout => Error, "the entries are under \"auths\", so none of them is used",
        "use the type kubernetes.io/dockerconfigjson with the key .dockerconfigjson";
    /// Nothing in it.
    NoEntries => Warning, "it holds no entries: pulls are anonymous",
        "add an entry for the registry";
    /// A byte order mark.
    ByteOrderMark => Error, "it begins with a byte order mark: a kubelet refuses it",
        "save the file as UTF-8 without a byte order mark";
    /// `HttpHeaders`.
    HttpHeaders => Note, "HttpHeaders are never sent",
        "remove them";
    /// `credsStore` or `credHelpers`.
    Helpers => Warning, "credential helpers are named, which no node runs for a secret",
        "write the login itself into the secret";
    /// An entry that cannot be decoded.
    BadEntry(why: EntryError) => Error, format!("{why}; a kubelet then fails every pull that uses this secret"),
        "auth is base64 of user:password in the standard alphabet";
    /// An entry without user and password.
    EmptyEntry => Warning, "the entry is empty: it stands for an anonymous attempt",
        "add user and password, or remove the entry";
    /// One of the two is empty.
    HalfEmpty => Warning, "the user name or the password is empty",
        "check that the whole login was copied";
    /// White space or NUL bytes at an end.
    OddPasswordEnd => Warning, "the user name or the password begins or ends with blanks, line ends or NUL bytes",
        "encode without a final line end: printf instead of echo";
    /// Blanks around `auth`.
    BlanksAroundAuth => Error, "there are blanks around auth: a kubelet refuses the whole secret",
        "remove the blanks";
    /// A token field that kubelets do not read.
    TokenIgnored => Warning, "kubelets ignore identitytoken and registrytoken",
        "use a user name and an access token as password";
    /// The key is no URL.
    KeyUnparsable => Error, "the key is not a registry host with an optional path, so it is never used",
        "write host[:port][/path]; globs are possible as * inside one label of the host";
    /// A scheme other than http and https.
    KeyScheme => Error, "only http:// and https:// are removed from keys, so it is never used",
        "write the key without a scheme";
    /// A tag or digest in the key.
    KeyTag => Error, "the key holds a tag or digest, so it never matches: images are looked up without",
        "end the key after the repository";
    /// A glob outside of the host, or one that is no `*`.
    KeyGlob => Error, "globs work only as * inside a label of the host, not in ports or paths, and ? and [] never",
        "name the host with *, and leave the path out or write it in full";
    /// A host that Docker Hub images are never looked up under.
    KeyHubName => Error, "images of Docker Hub are not looked up under this name",
        "use https://index.docker.io/v1/ or docker.io";
    /// `/v1` or `/v2` without a slash.
    KeyVersionPath => Error, "/v1 and /v2 are removed only with a slash behind them",
        "leave the path out";
    /// Port 443.
    KeyDefaultPort => Warning, "ports are compared as text: :443 does not match images without a port",
        "leave the port out unless images are written with it";
    /// Upper case in the host.
    KeyUpperCase => Warning, "hosts are compared letter by letter: upper case does not match lower case",
        "write the host in lower case";
    /// A path without a final slash.
    KeyNeighbours => Note, "the path also covers repositories whose names merely begin with it",
        "end it with a slash if only what lies below is meant; the slash form does not cover the path itself";
}
