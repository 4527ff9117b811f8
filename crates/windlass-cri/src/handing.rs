//! What containerd knows of our images, and what it is still to be told.
//!
//! An image is shown to the kubelet once containerd knows it, because containers are created there: what other hands
//! bring into the store is handed over first, what they take out is taken back. What fails is tried again, first after a
//! second, then ever more rarely. Images that were here when the daemon started count as known; containerd is looked
//! through by itself then.
//!
//! This is the bookkeeping alone: ids, names and times go in, what to do comes out.
//!
//! Invariants: `new_images_are_told_before_they_are_shown`, `what_fails_is_tried_again_ever_more_rarely`,
//! `only_news_is_told`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::digest::Digest;

use crate::view::ImageEntry;

/// Wait after a first failure, and the longest one.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What containerd was told of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    names: BTreeSet<String>,
    pinned: bool,
}

impl Told {
    pub(crate) fn of(image: &ImageEntry) -> Told {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain(&image.more_digests);
        Told { names: names.cloned().collect(), pinned: image.pinned }
    }

    /// Whether there is something in this that `before` lacks. A name that went is told by nobody: its record leads to an
    /// image that is still here.
    fn adds_to(&self, before: &Told) -> bool {
        self.pinned != before.pinned || !self.names.is_subset(&before.names)
    }
}

/// Something to do about one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Hand it over.
    HandOver,
    /// Take it back.
    TakeBack,
}

#[derive(Debug)]
struct Failed {
    due: Instant,
    wait: Duration,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Handing {
    /// Nothing before the first look at the store.
    known: Option<HashMap<Digest, Told>>,
    to_do: BTreeMap<Digest, Task>,
    failed: HashMap<Digest, Failed>,
}

impl Handing {
    /// Takes in what the store holds, of which `entries` are whole; answers with those that containerd knows. `heard` says
    /// to which manifest or index a name leads there by its own word.
    pub(crate) fn look(
        &mut self,
        ids: &BTreeSet<Digest>,
        entries: Vec<ImageEntry>,
        heard: impl Fn(&str) -> Option<Digest>,
    ) -> Vec<ImageEntry> {
        let Some(known) = &mut self.known else {
            self.known = Some(entries.iter().map(|entry| (entry.id.clone(), Told::of(entry))).collect());
            return entries;
        };
        for (id, _) in known.extract_if(|id, _| !ids.contains(id)) {
            self.to_do.insert(id, Task::TakeBack);
        }
        // One that went before it was handed over.
        self.to_do.retain(|id, task| *task == Task::TakeBack || ids.contains(id));
        let mut shown = Vec::new();
        for entry in entries {
            let now = Told::of(&entry);
            match known.get_mut(&entry.id) {
                None => drop(self.to_do.insert(entry.id, Task::HandOver)),
                Some(before) => {
                    let (manifest, index) = &entry.manifest;
                    let said = |name: &&String| {
                        heard(name).is_some_and(|target| target == *manifest || Some(&target) == index.as_ref())
                    };
                    before.names.extend(now.names.iter().filter(said).cloned());
                    if now.adds_to(before) {
                        self.to_do.insert(entry.id.clone(), Task::HandOver);
                    } else {
                        before.names = now.names;
                    }
                    shown.push(entry);
                }
            }
        }
        self.failed.retain(|id, _| self.to_do.contains_key(id));
        shown
    }

    /// containerd was told this much of an image. Before the first look that says nothing: it takes all for known.
    pub(crate) fn told(&mut self, id: &Digest, told: Told) {
        self.to_do.remove(id);
        self.failed.remove(id);
        if let Some(known) = &mut self.known {
            known.insert(id.clone(), told);
        }
    }

    /// containerd has an image no more.
    pub(crate) fn taken_back(&mut self, id: &Digest) {
        self.to_do.remove(id);
        self.failed.remove(id);
        if let Some(known) = &mut self.known {
            known.remove(id);
        }
    }

    /// It did not work.
    pub(crate) fn failed(&mut self, id: &Digest, now: Instant) {
        let failed = self.failed.entry(id.clone()).or_insert(Failed { due: now, wait: AGAIN.0 });
        failed.due = now + failed.wait;
        failed.wait = (failed.wait * 2).min(AGAIN.1);
    }

    /// What is to be done now.
    pub(crate) fn due(&self, now: Instant) -> Vec<(Digest, Task)> {
        let is_due = |id: &Digest| self.failed.get(id).is_none_or(|failed| failed.due <= now);
        self.to_do.iter().filter(|(id, _)| is_due(id)).map(|(id, task)| (id.clone(), *task)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::ImageUser;

    fn entry(marker: &str, tags: &[&str]) -> ImageEntry {
        ImageEntry {
            id: Digest::sha256(marker.as_bytes()),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            repo_digests: Vec::new(),
            more_digests: Vec::new(),
            size_bytes: 1,
            user: ImageUser::Unset,
            pinned: false,
            manifest: (Digest::sha256(b"manifest"), None),
        }
    }

    /// Names of images that are made of "manifest", as containerd has said itself.
    const HEARD: [&str; 2] = ["heard:1", "moved:1"];

    /// The tags that are shown.
    fn look(handing: &mut Handing, entries: &[ImageEntry]) -> Vec<String> {
        let ids = entries.iter().map(|entry| entry.id.clone()).collect();
        handing
            .look(&ids, entries.to_vec(), |name| HEARD.contains(&name).then(|| Digest::sha256(b"manifest")))
            .into_iter()
            .flat_map(|entry| entry.repo_tags)
            .collect()
    }

    fn id(marker: &str) -> Digest {
        Digest::sha256(marker.as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn new_images_are_told_before_they_are_shown() {
        let (mut handing, now) = (Handing::default(), Instant::now());
        assert_eq!(look(&mut handing, &[entry("a", &["a:1"])]), ["a:1"], "what was here at first is shown");
        assert_eq!(handing.due(now), []);
        let both = [entry("a", &["a:1"]), entry("b", &["b:1"])];
        assert_eq!(look(&mut handing, &both), ["a:1"]);
        assert_eq!(handing.due(now), [(id("b"), Task::HandOver)]);
        handing.told(&id("b"), Told::of(&both[1]));
        assert_eq!(look(&mut handing, &both), ["a:1", "b:1"]);
        assert_eq!(handing.due(now), []);
    }

    #[tokio::test(start_paused = true)]
    async fn only_news_is_told() {
        let (mut handing, now) = (Handing::default(), Instant::now());
        look(&mut handing, &[entry("a", &["a:1", "a:2"])]);
        assert_eq!(look(&mut handing, &[entry("a", &["a:1"])]), ["a:1"], "a name that went");
        assert_eq!(handing.due(now), []);
        assert_eq!(look(&mut handing, &[entry("a", &["a:1", "heard:1"])]), ["a:1", "heard:1"]);
        assert_eq!(handing.due(now), [], "containerd said it itself");
        // Of another image there: whoever moved the name did so here.
        let moved = ImageEntry { manifest: (Digest::sha256(b"other"), None), ..entry("a", &["a:1", "moved:1"]) };
        look(&mut handing, std::slice::from_ref(&moved));
        assert_eq!(handing.due(now), [(id("a"), Task::HandOver)]);
        handing.told(&id("a"), Told::of(&moved));
        let more = entry("a", &["a:1", "a:3"]);
        assert_eq!(
            look(&mut handing, std::slice::from_ref(&more)),
            ["a:1", "a:3"],
            "an image that is known stays shown"
        );
        assert_eq!(handing.due(now), [(id("a"), Task::HandOver)]);
        handing.told(&id("a"), Told::of(&more));
        let pinned = ImageEntry { pinned: true, ..more.clone() };
        look(&mut handing, std::slice::from_ref(&pinned));
        assert_eq!(handing.due(now), [(id("a"), Task::HandOver)]);
        handing.told(&id("a"), Told::of(&pinned));
        assert_eq!(look(&mut handing, &[]), Vec::<String>::new());
        assert_eq!(handing.due(now), [(id("a"), Task::TakeBack)]);
        handing.taken_back(&id("a"));
        look(&mut handing, &[]);
        assert_eq!(handing.due(now), []);
        // Damaged: not shown, and not taken back either.
        look(&mut handing, std::slice::from_ref(&more));
        handing.told(&id("a"), Told::of(&more));
        assert_eq!(handing.look(&BTreeSet::from([id("a")]), Vec::new(), |_| None), []);
        assert_eq!(handing.due(now), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_that_went_before_it_was_told_is_not_told() {
        let (mut handing, now) = (Handing::default(), Instant::now());
        look(&mut handing, &[]);
        look(&mut handing, &[entry("a", &["a:1"])]);
        handing.failed(&id("a"), now);
        look(&mut handing, &[]);
        assert_eq!(handing.due(now + AGAIN.1), []);
        assert!(handing.failed.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_ever_more_rarely() {
        let (mut handing, mut now) = (Handing::default(), Instant::now());
        look(&mut handing, &[]);
        look(&mut handing, &[entry("a", &["a:1"])]);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(handing.due(now).len(), 1);
            handing.failed(&id("a"), now);
            let mut wait = 0;
            while handing.due(now).is_empty() {
                now += Duration::from_secs(1);
                wait += 1;
            }
            waits.push(wait);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
