//! Configuration: typed, strict, and able to say where each value comes from.
//!
//! In: `/etc/windlass/config.yaml` (or the user's, or `--config`), the files of the drop-in folder beside it,
//! the environment, the flags. Out: one [`Loaded`]. Unknown and repeated keys are errors with their place.
//!
//! Invariants: `drop_ins_are_read_in_name_order`, `a_named_file_must_exist`, `every_problem_is_told_at_once`,
//! and those of [`resolve`].

pub(crate) mod nearest;
pub(crate) mod node;
mod places;
pub(crate) mod registry;
pub(crate) mod resolve;
pub(crate) mod section;
mod tree;
pub(crate) mod value;

use std::io::Read;
use std::path::{Path, PathBuf};

use node::Node;
use places::default_config;
use resolve::{Effective, Problem, Sources};

/// What was loaded, and from where.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) node: Node,
    pub(crate) effective: Vec<Effective>,
    /// Files that were read, in order.
    pub(crate) files: Vec<PathBuf>,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file or folder could not be read.
    #[error("{}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// A file is not ours to trust.
    #[error("{}: is a symbolic link that belongs to another user", .path.display())]
    Planted { path: PathBuf },
    /// One or more values are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}

/// A value that a flag gives to a key.
#[derive(Clone, Debug)]
pub(crate) struct FlagValue {
    /// The key's path.
    pub(crate) path: &'static str,
    /// The flag's long name.
    pub(crate) flag: &'static str,
    /// Whether the flag's own variable gave it, not the command line.
    pub(crate) from_environment: bool,
    /// The values as text, one per use of the flag.
    pub(crate) texts: Vec<String>,
}

/// Where the environment is looked up: the process's own, or a test's.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Loads the configuration. `named` is the file of `--config`, which must exist; the default one may be missing.
pub(crate) fn load(named: Option<&Path>, flags: &[FlagValue], environment: Environment) -> Result<Loaded, ConfigError> {
    let keys = Node::keys();
    let mut sources = Sources::default();
    let files = files(named)?;
    for file in &files {
        sources.add_file(file, &read_file(file)?, &keys);
    }
    for key in &keys {
        if let Some(text) = environment(&key.variable()) {
            sources.add_variable(key, text);
        }
    }
    for flag in flags {
        sources.add_flag(flag);
    }
    let node = Node::resolve(&mut sources);
    if sources.problems.is_empty() {
        Ok(Loaded { node, effective: sources.effective, files })
    } else {
        Err(ConfigError::Wrong(sources.problems))
    }
}

/// Everything whose change may change the configuration: the files, whether they are there or not, and the folder of
/// the drop-ins.
pub(crate) fn watched(named: Option<&Path>) -> Vec<PathBuf> {
    let main = named.map_or_else(default_config, Path::to_owned);
    let folder = main.with_extension("d");
    let drop_ins = files(named).unwrap_or_default().into_iter().filter(|file| *file != main);
    [main.clone(), folder].into_iter().chain(drop_ins).collect()
}

/// Nothing but defaults.
pub(crate) fn defaults() -> Loaded {
    let mut sources = Sources::default();
    let node = Node::resolve(&mut sources);
    Loaded { node, effective: sources.effective, files: Vec::new() }
}

/// The main file, then the drop-ins in the order of their names. `config.yaml` has `config.d` beside it.
fn files(named: Option<&Path>) -> Result<Vec<PathBuf>, ConfigError> {
    let main = named.map_or_else(default_config, Path::to_owned);
    let mut drop_ins = Vec::new();
    let folder = main.with_extension("d");
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|source| ConfigError::Unreadable { path: folder.clone(), source })?.path();
                if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                    drop_ins.push(path);
                }
            }
        }
        Err(error) if is_absent(&error) => {}
        Err(source) => return Err(ConfigError::Unreadable { path: folder, source }),
    }
    drop_ins.sort();
    let present = named.is_some() || main.symlink_metadata().is_ok();
    Ok(present.then_some(main).into_iter().chain(drop_ins).collect())
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The text of a file, bounded. A link that somebody else planted is not followed.
fn read_file(path: &Path) -> Result<String, ConfigError> {
    use std::os::unix::fs::MetadataExt;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let meta = path.symlink_metadata().map_err(unreadable)?;
    let trusted = [0, rustix::process::geteuid().as_raw()];
    if meta.is_symlink() && !trusted.contains(&meta.uid()) {
        return Err(ConfigError::Planted { path: path.to_owned() });
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than allowed, so that the reader of the tree sees that there is too much.
    let limit = u64::try_from(tree::FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: config.windlass.dev/v1alpha1\nkind: NodeConfiguration\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config.d")).unwrap();
        for (name, body) in files {
            std::fs::write(folder.path().join(name), format!("{HEAD}{body}")).unwrap();
        }
        folder
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn drop_ins_are_read_in_name_order() {
        let folder = folder(&[
            ("config.yaml", "root: /main\nplatform: linux/amd64\n"),
            ("config.d/20-b.yaml", "root: /b\n"),
            ("config.d/10-a.yml", "root: /a\nauthfile: /auth\n"),
            ("config.d/note.txt", "root: /not-read\n"),
        ]);
        let loaded = load(Some(&folder.path().join("config.yaml")), &[], &nothing).unwrap();
        let general = loaded.node.general;
        assert_eq!(general.root, PathBuf::from("/b"));
        assert_eq!(general.authfile, Some(PathBuf::from("/auth")));
        assert_eq!(general.platform.as_deref(), Some("linux/amd64"));
        assert_eq!(loaded.files.len(), 3);
    }

    #[test]
    fn a_named_file_must_exist() {
        let folder = folder(&[]);
        let error = load(Some(&folder.path().join("config.yaml")), &[], &nothing).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let folder = folder(&[("config.yaml", "root: 1\nx: 2\n")]);
        let environment = |name: &str| (name == "WINDLASS_LIMITS_LAYER_ENTRIES").then(|| "many".to_owned());
        let error = load(Some(&folder.path().join("config.yaml")), &[], &environment).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(
            lines[2].starts_with("WINDLASS_LIMITS_LAYER_ENTRIES: limits.layerEntries wants a whole number"),
            "{error}"
        );
    }
}
