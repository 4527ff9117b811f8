//! Finds a registry's `hosts.toml`, or its docker-style certificates, in the configured directories.
//!
//! Read anew for every session, so that a change needs no restart. The first directory that exists for a host
//! is taken; nothing is merged. Source of truth: containerd `docs/hosts.md`.
//!
//! Invariants: `the_first_directory_that_exists_is_taken`, `a_broken_file_is_reported_and_certificates_still_count`.

use std::path::{Path, PathBuf};

use windlass_core::host::Host;
use windlass_core::mirror::{ClientCertificate, HostsFile};

/// Most bytes read of a `hosts.toml`; its parser refuses longer texts.
const FILE_BYTES: u64 = 1024 * 1024;
/// Most files looked at in a docker-style directory.
const DIRECTORY_ENTRIES: usize = 256;

/// What was found for a registry.
#[derive(Debug, Default)]
pub(crate) struct FoundHosts {
    pub(crate) file: Option<HostsFile>,
    /// What is wrong with it, for the log.
    pub(crate) warnings: Vec<String>,
}

/// Reads what the directories say about `registry`. Blocking.
pub(crate) fn find(directories: &[PathBuf], registry: &Host) -> FoundHosts {
    let mut found = FoundHosts::default();
    let candidates = directories.iter().flat_map(|root| names(registry).into_iter().map(|name| root.join(name)));
    let Some(directory) = candidates.into_iter().find(|path| path.is_dir()) else { return found };
    let path = directory.join("hosts.toml");
    match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > FILE_BYTES => found.warnings.push(format!("{} is too large", path.display())),
        Ok(_) => match read(&path, &directory) {
            Ok(file) => {
                let unknown = file.unknown.iter();
                found.warnings.extend(unknown.map(|k| format!("{}:{}: unknown key {}", path.display(), k.line, k.key)));
                found.file = Some(file);
                return found;
            }
            Err(problem) => found.warnings.push(format!("{}: {problem}", path.display())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => found.warnings.push(format!("{}: {error}", path.display())),
    }
    found.file = docker_style(&directory);
    found
}

fn read(path: &Path, directory: &Path) -> Result<HostsFile, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    HostsFile::parse(&text, directory).map_err(|e| windlass_core::reason::chain(&e))
}

/// `host_port_`, `host:port`, `_default`, as containerd looks them up.
fn names(registry: &Host) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(port) = registry.port() {
        names.push(format!("{}_{port}_", registry.name()));
    }
    names.extend([registry.as_str().to_owned(), "_default".to_owned()]);
    // A host is one path component; anything else never names a directory.
    names.retain(|name| !name.contains('/') && name != "." && name != "..");
    names
}

/// `*.crt` are authorities, `*.cert` with `*.key` what the client shows.
fn docker_style(directory: &Path) -> Option<HostsFile> {
    let mut file = HostsFile::parse("", directory).ok()?;
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .take(DIRECTORY_ENTRIES)
        .collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => file.server.settings.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = key.is_file().then_some(key);
                file.server.settings.client.push(ClientCertificate { certificate: path, key });
            }
            _ => {}
        }
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_first_directory_that_exists_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        write(&b.join("r.example_5000_/hosts.toml"), r#"server = "https://one.example""#);
        write(&b.join("r.example:5000/hosts.toml"), r#"server = "https://two.example""#);
        write(&b.join("_default/hosts.toml"), r#"server = "https://three.example""#);
        let dirs = [a.clone(), b];
        let server = |host: &str| {
            let file = find(&dirs, &Host::new(host)).file;
            file.and_then(|f| f.server.url).map(|u| u.host.to_string())
        };
        assert_eq!(server("r.example:5000").as_deref(), Some("one.example"));
        assert_eq!(server("r.example").as_deref(), Some("three.example"));
        write(&a.join("_default/hosts.toml"), "");
        assert_eq!(server("r.example:5000"), None);
        assert_eq!(find(&[], &Host::new("r.example")).file, None);
    }

    #[test]
    fn a_broken_file_is_reported_and_certificates_still_count() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("r.example");
        write(&directory.join("hosts.toml"), "server = [");
        write(&directory.join("ca.crt"), "");
        write(&directory.join("me.cert"), "");
        write(&directory.join("me.key"), "");
        let found = find(&[root.path().to_owned()], &Host::new("r.example"));
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        let settings = found.file.unwrap().server.settings;
        assert_eq!(settings.ca, [directory.join("ca.crt")]);
        let pair = ClientCertificate { certificate: directory.join("me.cert"), key: Some(directory.join("me.key")) };
        assert_eq!(settings.client, [pair]);
    }
}
