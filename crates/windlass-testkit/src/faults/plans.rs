//! Named faults: each with what a pull of one small image must come to under it.
//!
//! A test walks [`plans`], starts a [`Setting`] for each, calls `arm`, pulls, and compares with `outcome`.

use std::time::Duration;

use windlass_core::digest::Digest;
use windlass_core::reason::Reason;

use super::{Cut, Fault, FaultyRegistry, Guard, When};
use crate::images::{Entry, Image, Layer, incompressible, small};
use crate::registry::TestTls;

/// What a pull must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client gets over it.
    Pulled,
    /// It ends with one of these.
    Failed(&'static [Reason]),
    /// It ends with one of these, provided that the client's time-outs are short.
    TimedOut(&'static [Reason]),
}

/// One named fault.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Name, e.g. `reset-blob-half`.
    pub id: &'static str,
    /// What happens, one line.
    pub what: &'static str,
    /// What a pull must come to.
    pub outcome: Outcome,
    /// What the registries are like.
    pub scene: Scene,
    arm: fn(&Setting),
}

/// What the registries of a plan are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Plain HTTP, open.
    Open,
    /// Plain HTTP, [`USER`] by Basic.
    Basic,
    /// Plain HTTP, [`USER`] by tokens of the registry itself.
    Bearer,
    /// HTTPS, open; the other registry speaks plain HTTP.
    Https,
    /// HTTPS on both, [`USER`] by tokens whose realm is the other registry.
    ForeignRealm,
    /// HTTPS, tokens for [`USER`], whose realm is at this address.
    Realm(&'static str),
}

/// The user of scenes with authentication.
pub const USER: &str = "alice";
/// The user's password: search for it in whatever a client writes.
pub const PASSWORD: &str = "canary-5e884898da28";

impl Plan {
    /// Starts the registries and injects the faults.
    pub fn set(&self) -> Setting {
        let setting = Setting::new(self.scene);
        (self.arm)(&setting);
        setting
    }
}

/// The registries of one plan: the one a client is sent to, and another one that must not learn anything.
#[derive(Debug)]
pub struct Setting {
    /// Where the reference points.
    pub registry: FaultyRegistry,
    /// Somebody else's host; it has the same image.
    pub other: FaultyRegistry,
    /// The image served: a small layer and one of 1 MiB.
    pub image: Image,
    /// Another image in the same repository, untagged.
    pub second: Image,
    /// What to pull.
    pub reference: String,
}

/// Repository of every plan.
const REPOSITORY: &str = "team/app";
/// Size of the large layer's content.
const LARGE_BYTES: usize = 1 << 20;

impl Setting {
    fn new(scene: Scene) -> Setting {
        let bearer = || Guard::bearer(USER, PASSWORD);
        let build = FaultyRegistry::build();
        let (registry, other) = match scene {
            Scene::Open => (build.start(), FaultyRegistry::open()),
            Scene::Basic => (build.guard(Guard::basic(USER, PASSWORD)).start(), FaultyRegistry::open()),
            Scene::Bearer => (build.guard(bearer()).start(), FaultyRegistry::open()),
            Scene::Https => (build.https().start(), FaultyRegistry::open()),
            Scene::Realm(realm) => (build.guard(bearer().with_realm(realm)).https().start(), FaultyRegistry::open()),
            Scene::ForeignRealm => {
                let tls = TestTls::new();
                let other = FaultyRegistry::build().guard(bearer()).https_with(tls.clone()).start();
                // By name, so that the realm is another host than the address in the reference.
                let realm = format!("https://localhost:{}/token", other.addr().port());
                (build.guard(bearer().with_realm(&realm)).https_with(tls).start(), other)
            }
        };
        let image = Image::build()
            .layer(Layer::new([Entry::dir("etc"), Entry::file("etc/a", "a\n")]))
            .layer(Layer::new([Entry::file("large", incompressible(LARGE_BYTES, 7))]))
            .finish();
        let second = small("second");
        other.place(&image.bundle(), REPOSITORY, "v1");
        registry.place(&second.bundle(), REPOSITORY, "v1");
        let reference = registry.place(&image.bundle(), REPOSITORY, "v1");
        Setting { registry, other, image, second, reference }
    }

    /// The digest of the large layer.
    pub fn large(&self) -> &Digest {
        &self.image.layers[1].blob.digest
    }

    fn large_bytes(&self) -> u64 {
        self.image.layers[1].blob.bytes.len() as u64
    }

    fn inject(&self, when: When, fault: Fault) {
        self.registry.inject(when, fault);
    }

    fn on_large(&self, fault: Fault) {
        self.inject(When::blob_of(self.large()), fault);
    }

    fn on_large_first(&self, fault: Fault) {
        self.inject(When::blob_of(self.large()).first(1), fault);
    }

    fn other_path(&self) -> String {
        format!("{}{{path}}", self.other.url())
    }
}

const SIZE: Outcome = Outcome::Failed(&[Reason::SizeMismatch, Reason::DigestMismatch]);
const DIGEST: Outcome = Outcome::Failed(&[Reason::DigestMismatch]);
const DOWN: Outcome = Outcome::Failed(&[Reason::RegistryUnavailable]);
const REFUSED: Outcome = Outcome::Failed(&[Reason::Unauthorized, Reason::Denied]);
const UNTRUSTED: Outcome = Outcome::Failed(&[Reason::RealmNotTrusted]);
const LATE: Outcome = Outcome::TimedOut(&[Reason::Timeout]);
const NO_IMAGE: Outcome = Outcome::Failed(&[Reason::NotAnImage]);
const LIMITED: Outcome = Outcome::Failed(&[Reason::LimitExceeded, Reason::RegistryUnavailable]);
const BAD_REDIRECT: Outcome =
    Outcome::Failed(&[Reason::RegistryUnavailable, Reason::Denied, Reason::Tls, Reason::LimitExceeded]);

macro_rules! plans {
    ($($id:literal $scene:expr, $outcome:expr, $what:literal, $arm:expr;)+) => {
        /// Every named fault.
        pub fn plans() -> Vec<Plan> {
            vec![$(Plan { id: $id, what: $what, outcome: $outcome, scene: $scene, arm: $arm },)+]
        }
    };
}

plans! {
    "endless-chunked" Scene::Open, SIZE, "a layer never ends, in chunks",
        |s| s.on_large(Fault::Endless { is_chunked: true });
    "endless-close" Scene::Open, SIZE, "a layer never ends, without framing",
        |s| s.on_large(Fault::Endless { is_chunked: false });
    "endless-manifest" Scene::Open, Outcome::Failed(&[Reason::LimitExceeded, Reason::SizeMismatch]),
        "a manifest never ends",
        |s| s.inject(When::manifest().method("GET"), Fault::Endless { is_chunked: true });
    "endless-config" Scene::Open, Outcome::Failed(&[Reason::LimitExceeded, Reason::SizeMismatch]),
        "a config never ends",
        |s| s.inject(When::blob_of(&s.image.config.digest), Fault::Endless { is_chunked: true });
    "endless-token" Scene::Bearer, Outcome::Failed(&[Reason::LimitExceeded, Reason::Unauthorized, Reason::RegistryUnavailable]),
        "a token answer never ends",
        |s| s.inject(When::token(), Fault::Endless { is_chunked: true });
    "endless-error" Scene::Open, DOWN, "the body of an error never ends",
        |s| {
            s.inject(When::blob_of(s.large()), Fault::status(500));
            s.on_large(Fault::Endless { is_chunked: true });
        };
    "long-one" Scene::Open, SIZE, "a layer is one byte longer", |s| s.on_large(Fault::Longer(1));
    "long-much" Scene::Open, SIZE, "a layer is 8 MiB longer", |s| s.on_large(Fault::Longer(8 << 20));
    "long-chunked" Scene::Open, SIZE, "a layer is longer, in chunks",
        |s| {
            s.on_large(Fault::Longer(100));
            s.on_large(Fault::Chunked);
        };
    "short-one" Scene::Open, SIZE, "a layer is one byte shorter, always", |s| s.on_large(Fault::Shorter(1));
    "short-empty" Scene::Open, SIZE, "a layer is empty", |s| s.on_large(Fault::Shorter(u64::MAX));
    "short-chunked" Scene::Open, SIZE, "a layer is shorter, in chunks",
        |s| {
            s.on_large(Fault::Shorter(1000));
            s.on_large(Fault::Chunked);
        };
    "short-once" Scene::Open, Outcome::Pulled, "a layer is cut off at its half, once",
        |s| s.on_large_first(Fault::Truncate { at: s.large_bytes() / 2, how: Cut::Close });
    "length-lie-high" Scene::Open, SIZE, "Content-Length says more than comes",
        |s| s.on_large(Fault::ContentLength(s.large_bytes() + 10));
    "length-lie-huge" Scene::Open, SIZE, "Content-Length says 2^62",
        |s| s.on_large(Fault::ContentLength(1 << 62));
    "chunked-honest" Scene::Open, Outcome::Pulled, "everything comes in chunks, without a length",
        |s| s.inject(When::any(), Fault::Chunked);
    "corrupt-layer" Scene::Open, DIGEST, "a layer has other bytes", |s| s.on_large(Fault::Corrupt);
    "corrupt-config" Scene::Open, DIGEST, "the config has other bytes",
        |s| s.inject(When::blob_of(&s.image.config.digest), Fault::Corrupt);
    "corrupt-once" Scene::Open, Outcome::Pulled, "a layer has other bytes, once",
        |s| s.on_large_first(Fault::Corrupt);
    "corrupt-manifest" Scene::Open, Outcome::Failed(&[Reason::DigestMismatch, Reason::BadManifest, Reason::NotAnImage]),
        "the manifest has other bytes under its true digest header",
        |s| s.inject(When::manifest().method("GET"), Fault::Corrupt);
    "bitflips-first" Scene::Open, Outcome::Failed(&[Reason::DigestMismatch, Reason::BadCompression]),
        "the first bit of a layer is flipped", |s| s.on_large(Fault::FlipBit(0));
    "bitflips-middle" Scene::Open, Outcome::Failed(&[Reason::DigestMismatch, Reason::BadCompression]),
        "a bit in the middle of a layer is flipped", |s| s.on_large(Fault::FlipBit(s.large_bytes() * 4));
    "bitflips-last" Scene::Open, Outcome::Failed(&[Reason::DigestMismatch, Reason::BadCompression]),
        "the last bit of a layer is flipped", |s| s.on_large(Fault::FlipBit(s.large_bytes() * 8 - 1));
    "digest-lie-manifest" Scene::Open, DIGEST, "Docker-Content-Digest of the manifest is another one",
        |s| s.inject(When::manifest(), Fault::Header("Docker-Content-Digest", Digest::sha256(b"lie").to_string()));
    "digest-lie-odd" Scene::Open, Outcome::Pulled, "Docker-Content-Digest is not a digest",
        |s| s.inject(When::manifest(), Fault::Header("Docker-Content-Digest", "sha256:../../etc/passwd".to_owned()));
    "digest-missing" Scene::Open, Outcome::Pulled, "no Docker-Content-Digest",
        |s| s.inject(When::manifest(), Fault::NoHeader("Docker-Content-Digest"));
    "html-manifest" Scene::Open, NO_IMAGE, "a web page in place of the manifest",
        |s| s.inject(When::manifest(), Fault::Html);
    "html-blob" Scene::Open, Outcome::Failed(&[Reason::SizeMismatch, Reason::DigestMismatch, Reason::NotAnImage]),
        "a web page in place of a layer", |s| s.on_large(Fault::Html);
    "html-token" Scene::Bearer, Outcome::Failed(&[Reason::Unauthorized, Reason::RegistryUnavailable, Reason::NotAnImage]),
        "a web page in place of a token", |s| s.inject(When::token(), Fault::Html);
    "json-empty" Scene::Open, Outcome::Failed(&[Reason::NotAnImage, Reason::BadManifest]), "an empty object in place of the manifest",
        |s| s.inject(When::manifest(), Fault::Instead(Box::new(super::Reply::new(200, "application/json", "{}"))));
    "redirect-host" Scene::Basic, Outcome::Pulled, "blobs are at another port; it must not see the credential",
        |s| s.inject(When::blob(), Fault::redirect(&s.other_path()));
    "redirect-host-401" Scene::Basic, REFUSED, "blobs are at another port that asks for credentials",
        |s| {
            s.inject(When::blob(), Fault::redirect(&s.other_path()));
            s.other.inject(When::blob(), Fault::Challenge("Basic realm=\"other\"".to_owned()));
        };
    "redirect-once" Scene::Open, Outcome::Pulled, "blobs are at another path of the same host",
        |s| {
            s.registry.serve_at("/elsewhere", "application/octet-stream", s.image.layers[1].blob.bytes.clone());
            s.on_large(Fault::redirect("/elsewhere"));
        };
    "redirect-loop" Scene::Open, BAD_REDIRECT, "a blob redirects to itself",
        |s| s.on_large(Fault::redirect("{path}"));
    "redirect-file" Scene::Open, BAD_REDIRECT, "a blob redirects to a file",
        |s| s.on_large(Fault::redirect("file:///etc/passwd"));
    "redirect-metadata" Scene::Open, BAD_REDIRECT, "a blob redirects to the metadata service",
        |s| s.on_large(Fault::redirect("http://169.254.169.254/latest/meta-data/"));
    "redirect-http" Scene::Https, BAD_REDIRECT, "https redirects to http",
        |s| s.on_large(Fault::redirect(&s.other_path()));
    "redirect-nowhere" Scene::Open, BAD_REDIRECT, "a redirect without a place",
        |s| {
            s.on_large(Fault::redirect("x"));
            s.on_large(Fault::NoHeader("Location"));
        };
    "auth-loop-basic" Scene::Open, REFUSED, "every answer is 401 with Basic",
        |s| s.inject(When::any(), Fault::Challenge("Basic realm=\"again\"".to_owned()));
    "auth-loop-bearer" Scene::Bearer, REFUSED, "every token is refused",
        |s| {
            let realm = format!("{}/token", s.registry.url());
            let challenge = format!("Bearer realm=\"{realm}\",service=\"faulty\",scope=\"repository:{REPOSITORY}:pull\"");
            s.inject(When::containing("/v2/"), Fault::Challenge(challenge));
        };
    "auth-loop-scope" Scene::Bearer, REFUSED, "every token has too small a scope",
        |s| {
            let realm = format!("{}/token", s.registry.url());
            let challenge = format!(
                "Bearer realm=\"{realm}\",service=\"faulty\",scope=\"repository:{REPOSITORY}:pull,push\",error=\"insufficient_scope\""
            );
            s.inject(When::containing("/v2/"), Fault::Challenge(challenge));
        };
    "auth-unknown-scheme" Scene::Open, REFUSED, "401 with a scheme nobody speaks",
        |s| s.inject(When::any(), Fault::Challenge("Negotiate".to_owned()));
    "realm-host" Scene::ForeignRealm, UNTRUSTED, "the realm is another host, which must not see the credential", |_| {};
    "realm-ip" Scene::Realm("https://169.254.169.254/token"), UNTRUSTED, "the realm is the metadata service", |_| {};
    "realm-http" Scene::Realm("http://localhost:1/token"), UNTRUSTED, "an https registry names an http realm", |_| {};
    "realm-userinfo" Scene::Realm("https://a:b@localhost:1/token"), UNTRUSTED, "the realm carries a user", |_| {};
    "realm-private" Scene::Realm("https://10.0.0.1/token"), UNTRUSTED,
        "a loopback registry names a private realm", |_| {};
    "e500" Scene::Open, DOWN, "every blob is 500", |s| s.inject(When::blob(), Fault::status(500));
    "e500-once" Scene::Open, Outcome::Pulled, "everything is 500, once each",
        |s| s.inject(When::any().first(1).each_path(), Fault::status(500));
    "e503" Scene::Open, DOWN, "everything is 503", |s| s.inject(When::any(), Fault::status(503));
    "e503-retry-after" Scene::Open, Outcome::Pulled, "503 with Retry-After of a second, once",
        |s| s.on_large_first(Fault::retry_after(503, "1"));
    "e429-retry-after" Scene::Open, Outcome::Pulled, "429 with Retry-After of a second, twice",
        |s| s.inject(When::manifest().first(2), Fault::retry_after(429, "1"));
    "e429-hour" Scene::Open, Outcome::Failed(&[Reason::RateLimited]), "429 with Retry-After of an hour",
        |s| s.inject(When::manifest(), Fault::retry_after(429, "3600"));
    "e403" Scene::Open, Outcome::Failed(&[Reason::Denied]), "everything is 403",
        |s| s.inject(When::any(), Fault::status(403));
    "e404-blob" Scene::Open, Outcome::Failed(&[Reason::BlobMissing, Reason::NotFound]), "a layer is missing",
        |s| s.on_large(Fault::status(404));
    "e404-manifest" Scene::Open, Outcome::Failed(&[Reason::NotFound]), "the manifest is missing",
        |s| s.inject(When::manifest(), Fault::status(404));
    "e500-head" Scene::Open, Outcome::Pulled, "HEAD is not allowed",
        |s| s.inject(When::any().method("HEAD"), Fault::status(405));
    "flaky" Scene::Open, Outcome::Pulled, "everything fails the first two times",
        |s| s.inject(When::any().first(2).each_path(), Fault::status(502));
    "outage-start" Scene::Open, Outcome::Pulled, "the first two connections are closed",
        |s| s.registry.refuse_connections(2);
    "outage-long" Scene::Open, DOWN, "every connection is closed",
        |s| s.registry.refuse_connections(u64::MAX);
    "outage-mid" Scene::Open, Outcome::Pulled, "a layer is cut, then 503 twice, then goes on",
        |s| {
            s.on_large_first(Fault::Truncate { at: 300_000, how: Cut::Close });
            s.inject(When::blob_of(s.large()).only(2), Fault::status(503));
            s.inject(When::blob_of(s.large()).only(3), Fault::status(503));
        };
    "reset-manifest" Scene::Open, Outcome::Pulled, "the manifest is reset at once, once",
        |s| s.inject(When::manifest().first(1), Fault::Truncate { at: 0, how: Cut::Reset });
    "reset-blob-start" Scene::Open, Outcome::Pulled, "a layer is reset at its first byte, once",
        |s| s.on_large_first(Fault::Truncate { at: 0, how: Cut::Reset });
    "reset-blob-half" Scene::Open, Outcome::Pulled, "a layer is reset at its half, once",
        |s| s.on_large_first(Fault::Truncate { at: s.large_bytes() / 2, how: Cut::Reset });
    "reset-blob-end" Scene::Open, Outcome::Pulled, "a layer is reset before its last byte, once",
        |s| s.on_large_first(Fault::Truncate { at: s.large_bytes() - 1, how: Cut::Reset });
    "reset-blob-often" Scene::Open, Outcome::Pulled, "every connection gives 128 KiB of a layer",
        |s| s.on_large(Fault::Truncate { at: 128 << 10, how: Cut::Reset });
    "reset-always" Scene::Open, DOWN, "every blob is reset at its first byte",
        |s| s.inject(When::blob(), Fault::Truncate { at: 0, how: Cut::Reset });
    "range-ignore" Scene::Open, Outcome::Pulled, "a layer is cut; the rest comes as a whole with 200",
        |s| {
            s.on_large(Fault::IgnoreRange);
            s.on_large_first(Fault::Truncate { at: 300_000, how: Cut::Close });
        };
    "range-lie-shift" Scene::Open, Outcome::Failed(&[Reason::RegistryUnavailable, Reason::DigestMismatch, Reason::SizeMismatch]),
        "a layer is cut; the rest begins somewhere else and says so",
        |s| {
            s.on_large(Fault::ShiftRange(17));
            s.on_large_first(Fault::Truncate { at: 300_000, how: Cut::Close });
        };
    "range-lie-header" Scene::Open, Outcome::Failed(&[Reason::RegistryUnavailable, Reason::DigestMismatch, Reason::SizeMismatch]),
        "a layer is cut; the rest has a Content-Range of something else",
        |s| {
            s.on_large(Fault::LieRange("bytes 0-9/10".to_owned()));
            s.on_large_first(Fault::Truncate { at: 300_000, how: Cut::Close });
        };
    "range-416" Scene::Open, Outcome::Pulled, "a layer is cut; ranges are answered 416",
        |s| {
            s.on_large(Fault::RefuseRange);
            s.on_large_first(Fault::Truncate { at: 300_000, how: Cut::Close });
        };
    "stall-once" Scene::Open, Outcome::Pulled, "a layer stalls at its half for ever, once",
        |s| s.on_large_first(Fault::Stall { at: s.large_bytes() / 2, how_long: None });
    "stall-short" Scene::Open, Outcome::Pulled, "a layer stalls for 200 ms",
        |s| s.on_large(Fault::Stall { at: 1000, how_long: Some(Duration::from_millis(200)) });
    "stall-for-ever" Scene::Open, LATE, "a layer stalls at its first byte, always",
        |s| s.on_large(Fault::Stall { at: 0, how_long: None });
    "stall-head" Scene::Open, LATE, "no answer to the manifest request, ever",
        |s| s.inject(When::manifest(), Fault::StallHead(None));
    "stall-end" Scene::Open, Outcome::Pulled, "a layer never ends after its last byte",
        |s| s.on_large(Fault::Stall { at: s.large_bytes(), how_long: None });
    "stall-token" Scene::Bearer, LATE, "no answer to the token request, ever",
        |s| s.inject(When::token(), Fault::StallHead(None));
    "slow" Scene::Open, LATE, "a layer comes at 100 bytes per second", |s| s.on_large(Fault::Trickle(100));
    "headers-large" Scene::Open, LIMITED, "a header of 1 MiB",
        |s| s.inject(When::manifest(), Fault::Headers { count: 1, len: 1 << 20 });
    "manyheaders" Scene::Open, LIMITED, "5000 headers",
        |s| s.inject(When::manifest(), Fault::Headers { count: 5000, len: 8 });
    "path-control" Scene::Open, Outcome::Failed(&[Reason::Denied]), "an error whose text controls the terminal",
        |s| s.inject(When::any(), Fault::Status {
            code: 403,
            retry_after: None,
            message: "\u{1b}[2Jcleared\u{7}\r\nreason: Forged\u{9b}31m".to_owned(),
        });
    "gzip-enc-blob" Scene::Open, Outcome::Failed(&[Reason::BadCompression, Reason::UnsupportedMediaType, Reason::DigestMismatch, Reason::SizeMismatch, Reason::NotAnImage]),
        "a layer comes with Content-Encoding gzip", |s| s.on_large(Fault::GzipEncoded);
    "gzip-enc-manifest" Scene::Open, Outcome::Failed(&[Reason::BadCompression, Reason::UnsupportedMediaType, Reason::DigestMismatch, Reason::BadManifest, Reason::NotAnImage]),
        "the manifest comes with Content-Encoding gzip", |s| s.inject(When::manifest().method("GET"), Fault::GzipEncoded);
    "tag-move" Scene::Open, Outcome::Pulled, "the tag moves after the first look; one image is pulled, not a mixture",
        |s| {
            let to = s.second.manifest.digest.clone();
            s.inject(When::manifest().only(1), Fault::MoveTag { repository: REPOSITORY.to_owned(), tag: "v1".to_owned(), to });
        };
}
