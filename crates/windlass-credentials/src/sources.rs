//! All sources together, asked in the kubelet's order.

use std::sync::Arc;

use futures_util::future::join_all;
use windlass_core::dockerconfig::Document;
use windlass_core::keyring::{Candidate, Keyring, Mode, Origin, PullSecret, Ring, Skipped};
use windlass_core::reason::chain;
use windlass_core::reference::Reference;

use crate::accounts::{ServiceAccount, TokenDirectory};
use crate::builder::Builder;
use crate::file::{Choice, FileError};
use crate::helper::{Helpers, WhichHelpers};
use crate::lookup::{CredentialsError, Lookup, ProviderKind, ProviderState, RefusedOutcome};
use crate::plugin::{PluginConfigError, PluginSet, ProviderConfigState, Reloaded};
use crate::providers::{Question, Renewals, Slot, Told};
use crate::source::{Found, Kind, Loaded, Source};

/// Every source of credentials of a process; share it, it remembers files and helper answers.
#[derive(Debug)]
pub struct CredentialSources {
    pub(crate) sources: Arc<[Source]>,
    /// How many of the sources, at the front, were given by the caller and stand before pull secrets.
    pub(crate) given: usize,
    pub(crate) helpers: Helpers,
    pub(crate) plugins: Option<Arc<PluginSet>>,
    pub(crate) clouds: Vec<Arc<Slot>>,
    pub(crate) tokens: Option<TokenDirectory>,
    pub(crate) renewals: Renewals,
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
        let clouds: &[Arc<Slot>] = match mode {
            Mode::Kubelet => &[],
            Mode::Windlass => &self.clouds,
        };
        for ring in self.rings_of_providers([&plugins, clouds], reference, asker, mode, &mut lookup).await {
            keyring.push(ring);
        }
        lookup.candidates = keyring.lookup(&reference.repository(), mode);
        Ok(lookup)
    }

    /// Forgets the answer that a candidate came from, after the registry refused it with 401. Says whether asking again
    /// can help; whoever asks again does so once for each refusal, lest a login that is always wrong is asked for for ever.
    pub fn refused(&self, reference: &Reference, candidate: &Candidate) -> RefusedOutcome {
        match &candidate.origin {
            Origin::Helper { .. } if self.helpers.forget(reference.host()) => return RefusedOutcome::AskAgain,
            // The next look finds what has been written there since.
            Origin::File { .. } => return RefusedOutcome::AskAgain,
            _ => {}
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

    /// One ring for each group of providers. All are asked at the same time; they count in their order.
    async fn rings_of_providers<const N: usize>(
        &self,
        groups: [&[Arc<Slot>]; N],
        image: &Reference,
        asker: Asker<'_>,
        mode: Mode,
        lookup: &mut Lookup,
    ) -> [Ring; N] {
        let question = Question { image, account: asker.service_account, tokens: self.tokens.as_ref(), mode };
        let ask = |slots: &[Arc<Slot>]| {
            let slots = slots.to_vec();
            async move { join_all(slots.iter().map(|slot| slot.ask(question, &self.renewals))).await }
        };
        let told = join_all(groups.map(ask)).await;
        let mut rings = [(); N].map(|()| Ring::new());
        for (ring, told) in rings.iter_mut().zip(told) {
            told.into_iter().for_each(|told| add(ring, told, lookup));
        }
        rings
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

/// Adds what a provider answered, and the note about it.
fn add(ring: &mut Ring, told: Told, lookup: &mut Lookup) {
    let Told { note, answer } = told;
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
