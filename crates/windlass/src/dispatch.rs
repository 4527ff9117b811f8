//! Which program this is, by the name of its file: a kubelet finds credential plugins by their names, so links with the
//! names of the clouds' own plugins let existing kubelet configurations work unchanged.
//!
//! Invariant: `the_clouds_plugins_are_found_by_their_names`.

use std::ffi::OsString;
use std::path::Path;

/// Names of the plugins that we stand in for, and what they are called here.
const PLUGINS: [(&str, &str); 3] =
    [("ecr-credential-provider", "ecr"), ("auth-provider-gcp", "gcp"), ("acr-credential-provider", "acr")];

/// The command line as if it had been written with our own name. The first argument is the file as it was started.
pub(crate) fn by_file_name(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|file| Path::new(file).file_name()).and_then(|name| name.to_str());
    let plugin = PLUGINS.iter().find(|(plugin, _)| Some(*plugin) == name);
    match plugin {
        None => arguments,
        Some((_, cloud)) => {
            let ours = ["windlass", "credential-provider", cloud].map(OsString::from);
            ours.into_iter().chain(arguments.into_iter().skip(1)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clouds_plugins_are_found_by_their_names() {
        let table = [
            ("/usr/bin/windlass pull a", "/usr/bin/windlass pull a"),
            ("/opt/bin/ecr-credential-provider", "windlass credential-provider ecr"),
            ("auth-provider-gcp get-credentials --v=3", "windlass credential-provider gcp get-credentials --v=3"),
            ("./acr-credential-provider /etc/azure.json", "windlass credential-provider acr /etc/azure.json"),
            ("my-acr-credential-provider x", "my-acr-credential-provider x"),
        ];
        for (line, want) in table {
            let split = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(by_file_name(split(line)), split(want), "{line}");
        }
        assert!(by_file_name(Vec::new()).is_empty());
    }
}
