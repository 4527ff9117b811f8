//! All sources together, asked in the kubelet's order.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use windlass_core::dockerconfig::Document;
use windlass_core::keyring::{Candidate, Credential, Keyring, Mode, Origin, PullSecret, Ring, Skipped};
use windlass_core::reason::chain;
use windlass_core::reference::Reference;

use crate::accounts::{ServiceAccount, TokenDirectory};
use crate::file::{Choice, ConfigFile, Content, FileError};
use crate::helper::{HelperPolicy, Helpers, WhichHelpers};
use crate::lookup::{CredentialsError, Lookup, ProviderKind, ProviderState, RefusedOutcome};
use crate::places::{NodePlaces, Person};
use crate::plugin::{PluginConfigError, PluginSet, PluginSettings, ProviderConfigState, Reloaded};
use crate::providers::{BuiltIn, Question, Renewals, Slot, Told};

/// One place where credentials come from. A source is asked for a ring and never fails for reasons of its own
/// content, except where it was named on purpose.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Given(Ring),
    /// Every file counts, in order; the ring of each is separate.
    Each(Vec<ConfigFile>),
    /// The first usable file wins.
    First(Vec<ConfigFile>),
}

impl Source {
    /// A credential that the caller has at hand, for the registry (host, or host and path) it belongs to.
    pub fn given(registry: &str, credential: Credential) -> Source {
        let mut ring = Ring::new();
        ring.add(registry, credential, "", Origin::Given);
        Source(Kind::Given(ring))
    }

    /// Files named on purpose; each must be there and usable.
    pub fn authfiles(paths: impl IntoIterator<Item = PathBuf>) -> Source {
        Source(Kind::Each(paths.into_iter().map(|path| ConfigFile::new(path, Choice::Explicit)).collect()))
    }

    /// The node's configuration, searched as the kubelet does.
    pub fn node(places: &NodePlaces) -> Source {
        Source(Kind::First(places.files().into_iter().map(|path| ConfigFile::new(path, Choice::Usual)).collect()))
    }

    /// A person's logins by docker and podman.
    pub fn person(person: &Person) -> Source {
        Source(Kind::Each(person.files().into_iter().map(|path| ConfigFile::new(path, Choice::Usual)).collect()))
    }

    /// Reads what has changed since the last time. Blocks.
    fn load(&self) -> Result<Vec<Loaded>, CredentialsError> {
        let (files, first_only) = match &self.0 {
            Kind::Given(_) => return Ok(Vec::new()),
            Kind::Each(files) => (files, false),
            Kind::First(files) => (files, true),
        };
        let mut loaded = Vec::new();
        for file in files {
            let found = match (file.load(), file.choice()) {
                (Ok(content), _) => Found::Content(content),
                (Err(FileError::Missing), Choice::Usual) => continue,
                (Err(error), Choice::Usual) => Found::Unusable(error),
                (Err(source), Choice::Explicit) => {
                    return Err(CredentialsError::AuthFile { path: file.path.clone(), source });
                }
            };
            loaded.push(Loaded { path: file.path.clone(), choice: file.choice(), found, first_only });
        }
        Ok(loaded)
    }
}

/// A file as it is now.
struct Loaded {
    path: PathBuf,
    choice: Choice,
    found: Found,
    first_only: bool,
}

enum Found {
    Content(Arc<Content>),
    Unusable(FileError),
}

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

/// Every source of credentials of a process; share it, it remembers files and helper answers.
#[derive(Debug)]
pub struct CredentialSources {
    sources: Arc<[Source]>,
    /// How many of the sources, at the front, were given by the caller and stand before pull secrets.
    given: usize,
    helpers: Helpers,
    plugins: Option<Arc<PluginSet>>,
    clouds: Vec<Arc<Slot>>,
    tokens: Option<TokenDirectory>,
    renewals: Renewals,
}

/// For whom credentials are looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// The pod's pull secrets, in its order.
    pub pull_secrets: &'a [PullSecret],
    /// The pod's service account.
    pub service_account: Option<&'a ServiceAccount>,
}

impl CredentialSources {
    /// Starts with no source at all: only pull secrets.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The credentials for an image, in trying order, for a pod without a service account or for nobody in particular.
    ///
    /// # Errors
    /// As [`CredentialSources::candidates_for`].
    pub async fn candidates(
        &self,
        reference: &Reference,
        pull_secrets: &[PullSecret],
        mode: Mode,
    ) -> Result<Lookup, CredentialsError> {
        self.candidates_for(reference, Asker { pull_secrets, service_account: None }, mode).await
    }

    /// The credentials for an image, in trying order.
    ///
    /// Dropping the future stops a running helper or plugin; files are read to their end in the background.
    ///
    /// # Errors
    /// Kubelet mode: a pull secret is malformed. Both modes: a file named on purpose cannot be used, the configuration of
    /// providers among them as long as there is none from before.
    pub async fn candidates_for(
        &self,
        reference: &Reference,
        asker: Asker<'_>,
        mode: Mode,
    ) -> Result<Lookup, CredentialsError> {
        let mut lookup = Lookup::default();
        let mut keyring = Keyring::new();
        for source in &self.sources[..self.given] {
            if let Kind::Given(ring) = &source.0 {
                keyring.push(ring.clone());
            }
        }
        keyring.push(Ring::of_secrets(asker.pull_secrets, mode, &mut lookup.skipped)?);
        for loaded in self.load_files().await? {
            let mut first_is_found = false;
            for file in loaded {
                if file.first_only && first_is_found {
                    break;
                }
                if let Some(ring) = self.ring_of(&file, reference, mode, &mut lookup).await? {
                    first_is_found = true;
                    keyring.push(ring);
                }
            }
        }
        let plugins = self.current_plugins(&mut lookup).await?;
        keyring.push(self.ring_of_providers(&plugins, reference, asker, mode, &mut lookup).await);
        match mode {
            Mode::Kubelet => {}
            Mode::Windlass => {
                keyring.push(self.ring_of_providers(&self.clouds, reference, asker, mode, &mut lookup).await);
            }
        }
        lookup.candidates = keyring.lookup(&reference.repository(), mode);
        Ok(lookup)
    }

    /// Forgets the answer that a candidate came from, after the registry refused it with 401. Says whether asking again
    /// can help; whoever asks again does so once for each refusal, lest a login that is always wrong is asked for for ever.
    pub fn refused(&self, reference: &Reference, candidate: &Candidate) -> RefusedOutcome {
        if let Origin::Helper { .. } = candidate.origin {
            let forgot = self.helpers.forget(reference.host());
            return if forgot { RefusedOutcome::AskAgain } else { RefusedOutcome::Fixed };
        }
        let plugins = self.plugins.as_ref().map(|set| set.slots()).unwrap_or_default();
        let suspects: Vec<_> =
            plugins.iter().chain(&self.clouds).filter(|slot| slot.may_have_given(&candidate.origin)).collect();
        // Known to nobody: it was renewed meanwhile, or is over.
        let unknown = if suspects.is_empty() { RefusedOutcome::Fixed } else { RefusedOutcome::AskAgain };
        suspects.into_iter().find_map(|slot| slot.refused(candidate)).unwrap_or(unknown)
    }

    /// Reads the configuration of providers anew. Blocks: it reads small files. What providers answered is kept where
    /// their part of the configuration is the same.
    ///
    /// # Errors
    /// The configuration cannot be used; the one from before, where there is one, stays in use.
    pub fn reload(&self) -> Result<Reloaded, Arc<PluginConfigError>> {
        self.plugins.as_ref().map_or_else(|| Ok(Reloaded::default()), |set| set.reload())
    }

    /// How every provider has fared, in the order of asking.
    pub fn provider_states(&self) -> Vec<ProviderState> {
        let plugins = self.plugins.as_ref().map(|set| set.slots()).unwrap_or_default();
        plugins.iter().chain(&self.clouds).map(|slot| slot.state()).collect()
    }

    /// Which configuration of providers is in use; `None` where there is none.
    pub fn provider_config(&self) -> Option<ProviderConfigState> {
        self.plugins.as_ref().map(|set| set.state())
    }

    /// The programs as they are configured now.
    async fn current_plugins(&self, lookup: &mut Lookup) -> Result<Arc<[Arc<Slot>]>, CredentialsError> {
        let Some(set) = self.plugins.clone() else { return Ok(Arc::default()) };
        let look = move || {
            let refreshed = set.refresh();
            (set, refreshed)
        };
        let (set, refreshed) = tokio::task::spawn_blocking(look).await.map_err(|_| CredentialsError::Interrupted)?;
        if let Err(error) = refreshed {
            if !set.is_loaded() {
                return Err(CredentialsError::Plugins(error));
            }
            let why = format!("its latest change is not in use: {}", chain(error.as_ref()));
            lookup.skipped.push(Skipped { origin: Origin::file(set.path()), key: String::new(), why });
        }
        Ok(set.slots())
    }

    /// The ring of several providers, which are asked at the same time and count in their order.
    async fn ring_of_providers(
        &self,
        slots: &[Arc<Slot>],
        image: &Reference,
        asker: Asker<'_>,
        mode: Mode,
        lookup: &mut Lookup,
    ) -> Ring {
        let mut ring = Ring::new();
        let question = Question { image, account: asker.service_account, tokens: self.tokens.as_ref(), mode };
        let asked = slots.iter().map(|slot| slot.ask(question, &self.renewals));
        for Told { note, answer } in join_all(asked).await {
            if let Some((answer, origin)) = answer {
                for (key, login) in &answer.auth {
                    if !ring.add(key, login.clone(), "", origin.clone()) {
                        let why = "the key is not a registry host with an optional path".to_owned();
                        lookup.skipped.push(Skipped { origin: origin.clone(), key: key.clone(), why });
                    }
                }
            }
            let origin = match note.kind {
                ProviderKind::Plugin => Origin::Plugin { name: note.name.clone() },
                ProviderKind::Cloud => Origin::Cloud { name: note.name.clone() },
            };
            lookup.skipped.extend(note.problem().map(|why| Skipped { origin, key: String::new(), why }));
            lookup.providers.push(note);
        }
        ring
    }

    /// One group of files for each source that has files.
    async fn load_files(&self) -> Result<Vec<Vec<Loaded>>, CredentialsError> {
        if self.sources.len() == self.given {
            return Ok(Vec::new());
        }
        let sources = Arc::clone(&self.sources);
        let load = move || sources.iter().map(Source::load).collect();
        tokio::task::spawn_blocking(load).await.unwrap_or(Err(CredentialsError::Interrupted))
    }

    /// The ring of one file, or of the helper it names for this registry; `None` if the file is of no use.
    async fn ring_of(
        &self,
        file: &Loaded,
        reference: &Reference,
        mode: Mode,
        lookup: &mut Lookup,
    ) -> Result<Option<Ring>, CredentialsError> {
        let origin = Origin::file(&file.path);
        let mut skip = |why: String| {
            lookup.skipped.push(Skipped { origin: origin.clone(), key: String::new(), why });
        };
        let content = match &file.found {
            Found::Content(content) => content,
            Found::Unusable(error) => {
                skip(error.to_string());
                return Ok(None);
            }
        };
        let document = match (content.document(mode), file.choice) {
            (Ok(document), _) => document,
            (Err(error), Choice::Usual) => {
                skip(error.to_string());
                return Ok(None);
            }
            (Err(error), Choice::Explicit) => {
                let source = FileError::Decode(error.clone());
                return Err(CredentialsError::AuthFile { path: file.path.clone(), source });
            }
        };
        if content.exposed && !document.entries.is_empty() {
            lookup.exposed_files.push(file.path.clone());
        }
        let mut ring = Ring::new();
        match self.helper_of(document, reference, mode) {
            Some(name) if self.helpers.permits(&name) => {
                self.ask_helper(&name, reference, &mut ring, lookup).await;
                return Ok(Some(ring));
            }
            Some(name) => {
                let why = format!("the credential helper {name:?} is named, and may not run here");
                lookup.skipped.push(Skipped { origin: origin.clone(), key: String::new(), why });
            }
            None => {}
        }
        ring.add_decoded(document, &origin, &mut lookup.skipped);
        Ok(Some(ring))
    }

    /// The helper that a document names for a registry. The kubelet knows none.
    fn helper_of(&self, document: &Document, reference: &Reference, mode: Mode) -> Option<String> {
        match mode {
            Mode::Kubelet => None,
            Mode::Windlass => {
                let host = reference.host().as_str();
                let hub = ["index.docker.io", "https://index.docker.io/v1/"];
                let also = if host == "docker.io" { &hub[..] } else { &[] };
                let named = std::iter::once(&host).chain(also).find_map(|key| document.cred_helpers.get(*key));
                let store = match self.helpers.which() {
                    // A node runs only what its administrator listed for a host; a store is a person's.
                    WhichHelpers::None | WhichHelpers::Listed(_) => None,
                    WhichHelpers::AnyNamed => document.creds_store.as_ref(),
                };
                named.filter(|name| !name.is_empty()).or(store).cloned()
            }
        }
    }

    async fn ask_helper(&self, name: &str, reference: &Reference, ring: &mut Ring, lookup: &mut Lookup) {
        let origin = Origin::Helper { name: name.to_owned() };
        match self.helpers.get(name, reference.host()).await {
            Ok(Some(credential)) => {
                ring.add(reference.host().as_str(), credential, "", origin);
            }
            Ok(None) => {}
            Err(error) => {
                let mut why = error.to_string();
                if let Some(cause) = std::error::Error::source(&error) {
                    why = format!("{why}: {cause}");
                }
                lookup.skipped.push(Skipped { origin, key: reference.host().to_string(), why });
            }
        }
    }
}
