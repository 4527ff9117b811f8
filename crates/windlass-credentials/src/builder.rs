//! Collects the sources of a process.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_core::keyring::Credential;

use crate::accounts::TokenDirectory;
use crate::helper::{HelperPolicy, Helpers};
use crate::places::{NodePlaces, Person};
use crate::plugin::{PluginSet, PluginSettings};
use crate::providers::{BuiltIn, Renewals, Slot};
use crate::source::Source;
use crate::sources::CredentialSources;

/// Collects the sources; the order of the calls does not matter.
#[derive(Debug, Default)]
pub struct Builder {
    given: Vec<Source>,
    authfiles: Vec<PathBuf>,
    node: Option<NodePlaces>,
    person: Option<Person>,
    helpers: HelperPolicy,
    plugins: Option<PluginSettings>,
    clouds: Vec<BuiltIn>,
    tokens: Option<TokenDirectory>,
}

impl Builder {
    /// Adds a credential for a registry that the caller has at hand; it is tried before all others.
    pub fn given(mut self, registry: &str, credential: Credential) -> Builder {
        self.given.push(Source::given(registry, credential));
        self
    }

    /// Adds a file named on purpose.
    pub fn authfile(mut self, path: impl Into<PathBuf>) -> Builder {
        self.authfiles.push(path.into());
        self
    }

    /// Searches the node's places.
    pub fn node(mut self, places: NodePlaces) -> Builder {
        self.node = Some(places);
        self
    }

    /// Searches a person's places.
    pub fn person(mut self, person: Person) -> Builder {
        self.person = Some(person);
        self
    }

    /// Says which credential helpers may run; none by default.
    pub fn helpers(mut self, policy: HelperPolicy) -> Builder {
        self.helpers = policy;
        self
    }

    /// Asks the programs of a configuration, as a kubelet does, after all files.
    pub fn plugins(mut self, settings: PluginSettings) -> Builder {
        self.plugins = Some(settings);
        self
    }

    /// Asks a cloud in this process, after all programs. By the kubelet's rules there are none.
    pub fn builtin(mut self, cloud: BuiltIn) -> Builder {
        self.clouds.push(cloud);
        self
    }

    /// Says where the tokens of service accounts are, for programs that want one.
    pub fn service_account_tokens(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.tokens = Some(TokenDirectory::new(directory));
        self
    }

    /// The sources. Nothing is read yet; [`CredentialSources::reload`] tells whether the configuration of providers can
    /// be used.
    pub fn build(self) -> CredentialSources {
        let mut sources = self.given;
        let authfiles = (!self.authfiles.is_empty()).then(|| Source::authfiles(self.authfiles));
        let files: Vec<Source> = authfiles
            .into_iter()
            .chain(self.node.as_ref().map(Source::node))
            .chain(self.person.as_ref().map(Source::person))
            .collect();
        let given = sources.len();
        sources.extend(files);
        CredentialSources {
            sources: sources.into(),
            given,
            helpers: Helpers::new(self.helpers),
            plugins: self.plugins.map(|settings| Arc::new(PluginSet::new(settings))),
            clouds: self.clouds.into_iter().map(|cloud| Arc::new(Slot::cloud(cloud))).collect(),
            tokens: self.tokens,
            renewals: Renewals::default(),
        }
    }
}
