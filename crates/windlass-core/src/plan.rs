//! What a pull will do about the layers of an image: which are here, which blobs have to be fetched, in which order,
//! and how much that is.
//!
//! In: the blob of each layer and what the store holds of it. Out: a [`Plan`], which the engine follows.
//! Source of truth: the manifest; image-spec `layer.md` for layers that are listed twice.
//!
//! Invariants: `a_blob_listed_twice_is_fetched_once`, `the_longest_fetch_comes_first`,
//! `a_second_thread_goes_where_cores_would_idle`.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::manifest::Descriptor;

/// More layers than this are worth a note: older Docker versions cannot run the image.
pub const LAYERS_NOTED_ABOVE: usize = 127;

/// What the store holds of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// Its unpacked tree, on top of exactly these lower layers.
    Unpacked,
    /// Nothing yet, but another pull has it in work.
    InWork,
    /// Nothing.
    Nothing,
}

/// One blob to be fetched, and the layers it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// What to fetch.
    pub blob: Descriptor,
    /// Positions of the layers that are unpacked from it, lowest first.
    pub layers: Vec<usize>,
}

/// What a pull will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Positions of the layers that are used as they are.
    pub present: Vec<usize>,
    /// Positions of the layers that another pull has in work.
    pub in_work: Vec<usize>,
    /// Each missing blob once, the longest first, so that none of them is waited for alone at the end.
    pub fetches: Vec<Fetch>,
    /// Compressed bytes to fetch; to be compared with the free space before the first request. What unpacking needs
    /// beyond that is not known before.
    pub fetch_bytes: u64,
}

impl Plan {
    /// Plans the layers of an image, lowest first.
    pub fn of<'a>(layers: impl IntoIterator<Item = (&'a Descriptor, Held)>) -> Plan {
        let mut plan = Plan::default();
        let mut fetch_of: HashMap<&Digest, usize> = HashMap::new();
        for (at, (blob, held)) in layers.into_iter().enumerate() {
            match (held, fetch_of.get(&blob.digest)) {
                (Held::Unpacked, _) => plan.present.push(at),
                (Held::InWork, _) => plan.in_work.push(at),
                (Held::Nothing, Some(fetch)) => plan.fetches[*fetch].layers.push(at),
                (Held::Nothing, None) => {
                    fetch_of.insert(&blob.digest, plan.fetches.len());
                    plan.fetch_bytes = plan.fetch_bytes.saturating_add(blob.size_bytes);
                    plan.fetches.push(Fetch { blob: blob.clone(), layers: vec![at] });
                }
            }
        }
        plan.fetches.sort_by_key(|fetch| std::cmp::Reverse(fetch.blob.size_bytes));
        plan
    }

    /// Whether a layer of this size pays for a second thread: when the fetches are fewer than the cores, or when it
    /// is most of what is fetched.
    pub fn pays_second_thread(&self, size_bytes: u64, cores: usize) -> bool {
        cores > 1 && (self.fetches.len() < cores || size_bytes > self.fetch_bytes / 2)
    }
}

/// What is odd about an image of so many layers without being wrong.
pub fn note_on_layers(count: usize) -> Option<String> {
    (count > LAYERS_NOTED_ABOVE).then(|| format!("{count} layers: some runtimes allow {LAYERS_NOTED_ABOVE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::media_type;

    /// Layers of one blob per letter, as long as the letter's place in the alphabet.
    fn plan(blobs: &str, held: impl Fn(usize) -> Held) -> Plan {
        let layers: Vec<Descriptor> = blobs
            .chars()
            .map(|c| {
                let size_bytes = u64::from(u32::from(c) - u32::from('a') + 1);
                Descriptor::new(media_type::OCI_LAYER, Digest::sha256(c.to_string().as_bytes()), size_bytes)
            })
            .collect();
        Plan::of(layers.iter().enumerate().map(|(at, layer)| (layer, held(at))))
    }

    fn positions(plan: &Plan) -> Vec<Vec<usize>> {
        plan.fetches.iter().map(|fetch| fetch.layers.clone()).collect()
    }

    #[test]
    fn a_blob_listed_twice_is_fetched_once() {
        let plan = plan("baba", |_| Held::Nothing);
        assert_eq!(positions(&plan), [[0, 2], [1, 3]]);
        assert_eq!(plan.fetch_bytes, 3);
    }

    #[test]
    fn the_longest_fetch_comes_first() {
        let plan = plan("acbd", |at| if at == 3 { Held::Unpacked } else { Held::Nothing });
        assert_eq!(positions(&plan), [[1], [2], [0]]);
        assert_eq!((plan.present, plan.fetch_bytes), (vec![3], 6));
    }

    #[test]
    fn what_is_here_or_in_work_is_not_fetched() {
        let plan = plan("ab", |at| if at == 0 { Held::Unpacked } else { Held::InWork });
        assert_eq!((plan.present, plan.in_work, plan.fetches, plan.fetch_bytes), (vec![0], vec![1], vec![], 0));
    }

    #[test]
    fn a_second_thread_goes_where_cores_would_idle() {
        let plan = plan("aaabz", |_| Held::Nothing);
        let table = [
            // size, cores, pays
            (1, 1, false),
            (26, 1, false),
            (1, 3, false),
            (26, 3, true),
            (1, 4, true),
        ];
        for (size_bytes, cores, pays) in table {
            assert_eq!(plan.pays_second_thread(size_bytes, cores), pays, "{size_bytes} bytes, {cores} cores");
        }
    }

    #[test]
    fn an_image_of_many_layers_gets_a_note() {
        assert_eq!(note_on_layers(127), None);
        assert_eq!(note_on_layers(128).as_deref(), Some("128 layers: some runtimes allow 127"));
    }
}
