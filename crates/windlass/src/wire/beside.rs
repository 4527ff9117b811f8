//! Work that goes through the node daemon, where one runs on the store of this call: so that transfers, their bounds and
//! what containerd is told are shared with the kubelet's.
//!
//! In: the same requests and events as without a daemon. Out: the same reports and failures. Credentials are found here,
//! by the rules of the command; the daemon shows no others.
//!
//! Invariants (in `tests/node.rs`): `pull_prints_the_same_with_and_without_a_daemon`,
//! `a_daemon_that_goes_away_is_told_as_that`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use windlass_core::keyring::{Candidate, Mode};
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_credentials::{CredentialSources, RefusedOutcome};
use windlass_node::NodeLock;
use windlass_node::client::{Answer, ClientError, NodeClient};
use windlass_node::wire::{EnsureAsk, EnsureLine, GivenCandidate, GivenLookup, Line, ManifestFile, PullAsk, Refusal};
use windlass_pull::events::{Event, EventSink};
use windlass_pull::{PullError, PullReport};

use super::credentials::{Whose, sources};
use super::{chain, pull_failure};
use crate::config::node::Node;
use crate::failure::Failure;
use crate::session::Session;

/// Keys that the daemon has values of its own for: a flag of this call would not count there.
const DAEMONS_OWN: [(&str, &str); 3] =
    [("hostsDir", "--hosts-dir"), ("caFile", "--ca-file"), ("limits.progressTimeout", "--progress-timeout")];

/// A daemon that does the work of this call.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    client: NodeClient,
    sources: Arc<CredentialSources>,
    platform: Option<String>,
}

impl Beside {
    /// The daemon on the store of this call; `None` where none runs, or where it would not do as the flags say.
    pub(crate) fn find(node: &Node, whose: Whose, session: &Session) -> Result<Option<Beside>, Failure> {
        let Some(holder) = NodeLock::holder(&node.general.root) else { return Ok(None) };
        let mut own: Vec<&str> =
            DAEMONS_OWN.iter().filter(|(path, _)| session.has_flag(path)).map(|(_, flag)| *flag).collect();
        own.extend(session.globals.plain_http.then_some("--plain-http"));
        if !own.is_empty() {
            let own = own.join(", ");
            session.note(&format!("{own} is for this call only, so the daemon on this store is not asked"));
            return Ok(None);
        }
        Ok(Some(Beside {
            client: NodeClient::new(&holder.socket),
            sources: sources(node, whose)?,
            platform: node.general.platform.clone(),
        }))
    }

    /// Makes an image present. A login that ended meanwhile is asked for again, once; what the daemon has by then stays.
    pub(crate) async fn pull(
        &self,
        image: &str,
        cancel: &CancellationToken,
        sink: &dyn EventSink,
    ) -> Result<PullReport, Failure> {
        let what = format!("cannot pull {image}");
        let failed = |error: PullError| pull_failure(&what, &error);
        let reference = Reference::parse(image).map_err(|error| failed(PullError::Reference(error)))?;
        let mut before: Option<(Vec<Candidate>, Failure)> = None;
        loop {
            let found = self.sources.candidates(&reference, &[], Mode::Windlass).await;
            let found = found.map_err(|source| failed(PullError::Credentials { source: Box::new(source) }))?;
            if let Some((candidates, failure)) = before.take_if(|(candidates, _)| *candidates == found.candidates) {
                tracing::debug!(count = candidates.len(), "asking again gave the same logins");
                return Err(failure);
            }
            let ask = PullAsk {
                image: image.to_owned(),
                platform: self.platform.clone(),
                candidates: found.candidates.iter().map(GivenCandidate::from).collect(),
            };
            match last(self.client.pull(&ask), cancel, sink, &what).await? {
                Line::Pulled { report } => return Ok((*report).into()),
                Line::Failed { failure } => {
                    let is_refused = matches!(failure.reason(), Reason::Unauthorized | Reason::Denied);
                    let failure = refused(&what, &failure);
                    if before.is_some() || !is_refused || !self.forget(&reference, &found.candidates) {
                        return Err(failure);
                    }
                    before = Some((found.candidates, failure));
                }
                Line::Event { .. } | Line::Ensured { .. } | Line::Alive => return Err(strange(&what)),
            }
        }
    }

    /// Forgets the answers that these came from; says whether asking again can help.
    fn forget(&self, reference: &Reference, refused: &[Candidate]) -> bool {
        let outcomes = refused.iter().map(|candidate| self.sources.refused(reference, candidate));
        outcomes.filter(|outcome| *outcome == RefusedOutcome::AskAgain).count() > 0
    }

    /// Does what the kubelet would do for every container of some pods; `images` are those that they name.
    pub(crate) async fn ensure(
        &self,
        mut ask: EnsureAsk,
        images: impl IntoIterator<Item = String>,
        cancel: &CancellationToken,
        sink: &dyn EventSink,
    ) -> Result<EnsureLine, Failure> {
        let what = "cannot ensure the images";
        ask.platform.clone_from(&self.platform);
        let mode = if ask.strict_kubelet { Mode::Kubelet } else { Mode::Windlass };
        ask.credentials = self.lookups(images, mode).await.map_err(|error| pull_failure(what, &error))?;
        match last(self.client.ensure(&ask), cancel, sink, what).await? {
            Line::Ensured { report } => Ok(*report),
            Line::Failed { failure } => Err(refused(what, &failure)),
            Line::Event { .. } | Line::Pulled { .. } | Line::Alive => Err(strange(what)),
        }
    }

    async fn lookups(
        &self,
        images: impl IntoIterator<Item = String>,
        mode: Mode,
    ) -> Result<BTreeMap<String, GivenLookup>, PullError> {
        let mut lookups = BTreeMap::new();
        for image in images {
            // A name that is none is told by whoever tries it.
            let Ok(reference) = Reference::parse(&image) else { continue };
            if let Entry::Vacant(place) = lookups.entry(image) {
                let found = self.sources.candidates(&reference, &[], mode).await;
                let found = found.map_err(|source| PullError::Credentials { source: Box::new(source) })?;
                place.insert(GivenLookup::from(&found));
            }
        }
        Ok(lookups)
    }
}

/// A manifest on its way to the daemon.
pub(crate) fn manifest(name: &str, text: &str) -> ManifestFile {
    ManifestFile { name: name.to_owned(), text: text.into() }
}

/// The last line of an answer; the work is given up when the call is.
async fn last(
    answer: impl Future<Output = Result<Answer, ClientError>>,
    cancel: &CancellationToken,
    sink: &dyn EventSink,
    what: &str,
) -> Result<Line, Failure> {
    let work = async { answer.await?.last(|event| sink.event(Event::from(event))).await };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(pull_failure(what, &PullError::Canceled)),
        last = work => last.map_err(|error| Failure::new(error.reason(), what, chain(&error))),
    }
}

fn refused(what: &str, refusal: &Refusal) -> Failure {
    Failure::new(refusal.reason(), what, &refusal.message).tried(refusal.tried.iter().cloned()).hint(&refusal.hint)
}

fn strange(what: &str) -> Failure {
    Failure::new(Reason::Internal, what, "the daemon answered something else than it was asked")
}
