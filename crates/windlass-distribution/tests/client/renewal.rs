//! Credentials that stop being good while a session goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::keyring::{Candidate, Credential, Origin};
use windlass_core::reason::Reason;
use windlass_distribution::{Client, CredentialMode, Renewal, Repository, TagOrDigest};

use crate::pull::read_all;
use crate::support::{Image, Reply, Seen, Server, fast, reference, session_as};

fn tag() -> TagOrDigest {
    TagOrDigest::Tag("1.0".into())
}

/// The login of a hand: its number is its password.
fn login(number: usize) -> Candidate {
    Candidate::new(Credential::basic("cloud", number.to_string()), Origin::Plugin { name: "p".into() }, "registry")
}

fn header(number: usize) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("cloud:{number}")))
}

/// A registry that takes the login `good` says, which it may change with each request.
async fn registry(image: &Image, good: impl Fn(&Seen) -> usize + Send + Sync + 'static) -> Server {
    let served = image.clone();
    Server::start(move |seen| match seen.authorization() {
        Some(shown) if shown == header(good(seen)) => served.serve(seen),
        _ => Reply::basic_challenge(),
    })
    .await
}

/// Each login is followed by the next one; says how often that was asked.
fn renewing(repository: &Repository) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    repository.renew_by(Renewal::new(move |refused| {
        count.fetch_add(1, Ordering::SeqCst);
        let Credential::Basic { password, .. } = &refused.credential else { panic!("{refused:?}") };
        let next = password.expose().parse::<usize>().unwrap() + 1;
        Box::pin(async move { Some(login(next)) })
    }));
    asked
}

#[tokio::test]
async fn a_refused_credential_is_renewed_once() {
    let image = Image::new(10);
    let server = registry(&image, |_| 2).await;
    let repository = session_as(&server, fast(), vec![login(1)]);
    let asked = renewing(&repository);
    repository.manifest(&tag()).await.unwrap();
    assert_eq!((repository.accepted().unwrap(), asked.load(Ordering::SeqCst)), (Some(login(2)), 1));
    // One that is no good either is not followed by a third.
    let repository = session_as(&server, fast(), vec![login(0)]);
    let asked = renewing(&repository);
    let error = repository.manifest(&tag()).await.unwrap_err();
    assert_eq!((error.reason(), asked.load(Ordering::SeqCst)), (Reason::Unauthorized, 1));
}

#[tokio::test]
async fn a_blob_goes_on_with_a_newer_credential() {
    let image = Image::new(3_000_000);
    let served = image.clone();
    // Taken at first; from the first cut of the layer on, only the next one is.
    let cuts = Arc::new(AtomicUsize::new(0));
    let cut = cuts.clone();
    let server = Server::start(move |seen| {
        let good = if cut.load(Ordering::SeqCst) == 0 { 1 } else { 2 };
        if seen.authorization() != Some(header(good).as_str()) {
            return Reply::basic_challenge();
        }
        let reply = served.serve(seen);
        if seen.path().contains("/blobs/") && cut.fetch_add(1, Ordering::SeqCst) == 0 {
            return reply.cut_after(1_000_000);
        }
        reply
    })
    .await;
    let repository = session_as(&server, fast(), vec![login(1)]);
    let asked = renewing(&repository);
    repository.manifest(&tag()).await.unwrap();
    assert!(read_all(repository.blob(&image.layer())).await.unwrap() == image.layer);
    assert_eq!((asked.load(Ordering::SeqCst), repository.accepted().unwrap()), (1, Some(login(2))));
}

#[tokio::test]
async fn a_kubelet_s_credential_is_not_renewed() {
    let image = Image::new(10);
    let server = registry(&image, |_| 2).await;
    let client = Client::new(fast()).unwrap();
    let repository = client.repository(&reference(&server), vec![login(1)], CredentialMode::Kubelet);
    let asked = renewing(&repository);
    assert_eq!(repository.manifest(&tag()).await.unwrap_err().reason(), Reason::Unauthorized);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
