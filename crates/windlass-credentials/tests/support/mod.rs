//! A directory with programs and a configuration of them, and what a test asks.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use windlass_core::keyring::Mode;
use windlass_core::reference::Reference;
use windlass_credentials::{Asked, Builder, CredentialSources, Lookup, PluginSettings};

/// Version of the protocol that the scripts speak.
pub(crate) const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A directory of programs and the configuration that names them.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
}

/// One program: its name, what its configuration says beside the usual, and its script.
pub(crate) struct Plugin<'a> {
    pub(crate) name: &'a str,
    pub(crate) more: &'a str,
    pub(crate) script: &'a str,
}

impl Scene {
    pub(crate) fn new(plugins: &[Plugin<'_>]) -> Scene {
        let scene = Scene { dir: TempDir::new().expect("a directory") };
        fs::create_dir(scene.bin()).expect("a directory");
        for plugin in plugins {
            scene.program(plugin.name, plugin.script);
        }
        scene.configure(&plugins.iter().map(|plugin| entry(plugin.name, plugin.more)).collect::<Vec<_>>());
        scene
    }

    /// Another process writes it: one that this process had open for writing while another test starts a program could
    /// not be started.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.bin().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut input = writer.stdin.take().expect("a pipe");
        write!(input, "#!/bin/sh\n{script}\n").expect("a program");
        drop(input);
        assert!(writer.wait().expect("a shell").success());
    }

    /// Writes the configuration as one would edit it: a new file in its place.
    pub(crate) fn configure(&self, entries: &[String]) {
        self.write_config(&document(entries));
    }

    pub(crate) fn write_config(&self, text: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.config()).expect("a configuration");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Scripts find the directory in `$DIR`.
    pub(crate) fn settings(&self) -> PluginSettings {
        let mut settings = PluginSettings::new(self.config(), self.bin());
        settings.environment = vec![("PATH".into(), "/usr/bin:/bin".into()), ("DIR".into(), self.dir.path().into())];
        settings.timeout = Duration::from_secs(20);
        settings
    }

    pub(crate) fn builder(&self) -> Builder {
        CredentialSources::builder().plugins(self.settings())
    }

    /// How often a script wrote a line to a file.
    pub(crate) fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.path(name)).map_or(0, |text| text.lines().count())
    }
}

/// The entry of a provider for everything at `*.io`, with an hour of default cache.
pub(crate) fn entry(name: &str, more: &str) -> String {
    let usual = [
        ("matchImages", "matchImages: ['*.io']"),
        ("defaultCacheDuration", "defaultCacheDuration: 1h"),
        ("apiVersion", "apiVersion: credentialprovider.kubelet.k8s.io/v1"),
    ];
    let mut lines = vec![format!("- name: {name}")];
    lines.extend(
        usual.iter().filter(|(key, _)| !more.contains(&format!("{key}:"))).map(|(_, line)| format!("  {line}")),
    );
    lines.extend(more.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("  {line}")));
    lines.join("\n")
}

pub(crate) fn document(entries: &[String]) -> String {
    let head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n";
    format!("{head}{}\n", entries.join("\n"))
}

/// A script that answers; `fields` come after kind and version.
pub(crate) fn answer(fields: &str) -> String {
    format!(
        r#"cat <<END
{{"kind":"CredentialProviderResponse","apiVersion":"{VERSION}",{fields}}}
END"#
    )
}

pub(crate) fn image(text: &str) -> Reference {
    Reference::parse(text).expect("an image name")
}

pub(crate) async fn ask(sources: &CredentialSources, name: &str) -> Lookup {
    sources.candidates(&image(name), &[], Mode::Windlass).await.expect("a lookup")
}

pub(crate) fn users(lookup: &Lookup) -> Vec<&str> {
    lookup.candidates.iter().map(|c| c.credential.username().unwrap_or("-")).collect()
}

/// What the first provider's failure says.
pub(crate) fn failure(lookup: &Lookup) -> &str {
    match &lookup.providers[0].asked {
        Asked::Failed { error, .. } => error,
        other => panic!("it did not fail: {other:?}"),
    }
}

/// Whether a process is gone, or waits for its parent to notice.
pub(crate) fn is_gone(pid: &str) -> bool {
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    fs::read_to_string(stat).map_or(true, |stat| stat.contains(") Z "))
}
