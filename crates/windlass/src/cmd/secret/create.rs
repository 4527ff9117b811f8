//! `windlass secret create`: a Secret of type kubernetes.io/dockerconfigjson.
//!
//! A password is never an argument, because arguments are seen by every user of the machine: it comes from a
//! file, a variable or standard input.
//!
//! Invariant: `a_login_names_its_place_of_the_password`.

use std::io::Read;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use windlass_core::dockerconfig::{Layout, LoginEntry, write_config_json};
use windlass_core::reason::Reason;
use windlass_core::secret::Secret;

use crate::args::Format;
use crate::failure::Failure;
use crate::output::write_out;
use crate::session::Session;

/// Longest password or token; registries' tokens stay below 10 KiB.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;
/// Largest Secret that the API server takes.
const SECRET_BYTES_MAX: usize = 1 << 20;

/// Arguments of `secret create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: windlass secret create regcred -n team-a \\
    --login registry.example/team-a,username=ci,password-file=ci.password \\
    --login docker.io,username=bot,password-env=HUB_TOKEN")]
pub(crate) struct Args {
    /// The Secret's name.
    name: String,
    /// The Secret's namespace; without it none is written.
    #[arg(short, long)]
    namespace: Option<String>,
    /// A registry with an optional path, the user, and where the password is: in a file, in a variable, or on
    /// standard input. May be repeated.
    #[arg(
        long = "login",
        required = true,
        value_name = "REGISTRY,username=USER,password-(file=FILE|env=VARIABLE|stdin)",
        value_parser = Login::parse
    )]
    logins: Vec<Login>,
}

/// One login as written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    registry: String,
    username: String,
    password: PasswordFrom,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PasswordFrom {
    File(PathBuf),
    Variable(String),
    Stdin,
}

impl Login {
    fn parse(text: &str) -> Result<Login, String> {
        let mut parts = text.split(',');
        let registry = parts.next().unwrap_or_default().to_owned();
        if registry.is_empty() || registry.contains('=') || registry.contains(char::is_whitespace) {
            return Err("begins with the registry, such as registry.example/team".to_owned());
        }
        let (mut username, mut password) = (None, None);
        for part in parts {
            let from = match part.split_once('=') {
                Some(("username", user)) if username.is_none() => {
                    username = Some(user.to_owned());
                    continue;
                }
                Some(("password-file", file)) => PasswordFrom::File(file.into()),
                Some(("password-env", variable)) => PasswordFrom::Variable(variable.to_owned()),
                None if part == "password-stdin" => PasswordFrom::Stdin,
                // What follows may be a password written by mistake, so it is not repeated.
                Some(_) | None => {
                    return Err("takes username=USER and one of password-file=FILE, password-env=VARIABLE, \
                                password-stdin; a password is never an argument"
                        .to_owned());
                }
            };
            if password.replace(from).is_some() {
                return Err("names more than one place of the password".to_owned());
            }
        }
        let username = username.filter(|user| !user.is_empty()).ok_or("needs username=USER")?;
        let password = password.ok_or("needs password-file=FILE, password-env=VARIABLE or password-stdin")?;
        Ok(Login { registry, username, password })
    }

    fn entry(&self) -> Result<LoginEntry, Failure> {
        Ok(LoginEntry {
            registry: self.registry.clone(),
            username: self.username.clone(),
            password: self.password.read()?,
        })
    }
}

impl PasswordFrom {
    fn read(&self) -> Result<Secret<String>, Failure> {
        match self {
            PasswordFrom::Variable(name) => {
                let value = std::env::var(name);
                let value = value.map_err(|_| wrong(&format!("variable {name}"), "is not set to a text"))?;
                password(&format!("variable {name}"), Secret::new(value.into_bytes()))
            }
            PasswordFrom::Stdin => read_bounded(std::io::stdin().lock(), "standard input"),
            PasswordFrom::File(path) => {
                let place = path.display().to_string();
                let file = std::fs::File::open(path).map_err(|error| wrong(&place, &error.to_string()))?;
                read_bounded(file, &place)
            }
        }
    }
}

fn read_bounded(reader: impl Read, place: &str) -> Result<Secret<String>, Failure> {
    // Room for the whole from the start: growing would leave copies behind.
    let mut bytes = Vec::with_capacity(usize::try_from(PASSWORD_BYTES_MAX).unwrap_or(usize::MAX) + 2);
    let read = reader.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    read.map_err(|error| wrong(place, &error.to_string()))?;
    if bytes.expose().len() as u64 > PASSWORD_BYTES_MAX {
        return Err(wrong(place, &format!("is longer than {PASSWORD_BYTES_MAX} bytes")));
    }
    password(place, bytes)
}

/// A single line feed at the end belongs to the editor, not to the password.
fn password(place: &str, bytes: Secret<Vec<u8>>) -> Result<Secret<String>, Failure> {
    let line = bytes.expose().strip_suffix(b"\n").unwrap_or(bytes.expose());
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err(wrong(place, "holds no password")),
        Ok(text) if text.contains('\n') => Err(wrong(place, "holds more than one line")),
        Ok(text) => Ok(Secret::new(text.to_owned())),
        Err(_) => Err(wrong(place, "is not text")),
    }
}

fn wrong(place: &str, why: &str) -> Failure {
    Failure::usage("cannot read a password", format!("{place} {why}"))
        .hint("put the password alone into the file or variable")
}

pub(super) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    object_name(&args.name)?;
    args.namespace.as_deref().map_or(Ok(()), object_name)?;
    let from_stdin = args.logins.iter().filter(|login| login.password == PasswordFrom::Stdin).count();
    if from_stdin > 1 {
        return Err(wrong("standard input", "can hold the password of one login only"));
    }
    let entries = args.logins.iter().map(Login::entry).collect::<Result<Vec<_>, _>>()?;
    let document = write_config_json(&entries);
    if document.expose().len() > SECRET_BYTES_MAX {
        let why = format!("{} bytes, more than the {SECRET_BYTES_MAX} a Secret may have", document.expose().len());
        return Err(Failure::new(Reason::LimitExceeded, "cannot make the secret", why));
    }
    let data = Secret::new(STANDARD.encode(document.expose()));
    match session.screen.format {
        Format::Json => {
            let mut metadata = json!({ "name": args.name });
            if let Some(namespace) = &args.namespace {
                metadata["namespace"] = namespace.as_str().into();
            }
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
                "type": "kubernetes.io/dockerconfigjson", "data": { Layout::ConfigJson.data_key(): data.expose() },
            });
            write_out(&format!("{secret:#}\n"))
        }
        Format::Name => write_out(&format!("secret/{}\n", args.name)),
        Format::Table | Format::Wide | Format::Yaml => {
            let namespace = args.namespace.as_ref().map_or_else(String::new, |name| format!("\n  namespace: {name}"));
            write_out(&format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {}{namespace}\n\
                 type: kubernetes.io/dockerconfigjson\ndata:\n  {}: {}\n",
                args.name,
                Layout::ConfigJson.data_key(),
                data.expose()
            ))
        }
    }
}

/// Kubernetes `IsDNS1123Subdomain`.
fn object_name(name: &str) -> Result<(), Failure> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name} cannot name a Kubernetes object"), "small letters, digits, - and . are allowed")
        .hint("choose another name, such as regcred"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_its_place_of_the_password() {
        let login = Login::parse("registry.example:5000/team,username=ci,password-file=/run/p").unwrap();
        assert_eq!((login.registry.as_str(), login.username.as_str()), ("registry.example:5000/team", "ci"));
        assert_eq!(login.password, PasswordFrom::File("/run/p".into()));
        let table = [
            ("", "begins with the registry"),
            ("username=a,password-stdin", "begins with the registry"),
            ("r,password-stdin", "needs username"),
            ("r,username=a", "needs password-file"),
            ("r,username=a,password=hunter2", "never an argument"),
            ("r,username=a,password-stdin,password-env=X", "more than one place"),
        ];
        for (text, want) in table {
            let message = Login::parse(text).unwrap_err();
            assert!(message.contains(want), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_password_is_one_line() {
        let read = |text: &str| password("f", Secret::new(text.as_bytes().to_vec()));
        assert_eq!(read("hunter2\r\n").unwrap().expose(), "hunter2");
        assert_eq!(read(" a b ").unwrap().expose(), " a b ");
        for text in ["", "\n", "a\nb"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
