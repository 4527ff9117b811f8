//! Who may transfer now: a bounded number of layers at once, over all images and for each registry.
//!
//! A slot goes to the image that holds fewest, then to who waits longest; the last slots are kept for images that hold
//! none. So a giant image uses what is free and a small one that comes later does not wait for it. [`Queue`] is the
//! rule, without time or tasks; [`Slots`] lets tasks wait for it.
//!
//! Invariants: `a_small_image_gets_a_slot_while_a_giant_one_transfers`, `no_registry_gets_more_than_its_share`,
//! `slots_go_round`, `a_dropped_wait_takes_nothing`, `nothing_waits_while_it_could_run`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Fewest transfers at once over all images: one image alone keeps the network busy with three, and a second one can
/// begin beside it.
const AT_ONCE_MIN: usize = 6;

/// How many transfers may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Layers in transfer at once, over all images. Each takes some 8 MiB of memory while it is unpacked.
    pub at_once: usize,
    /// Of these, from one registry.
    pub per_registry: usize,
}

impl TransferLimits {
    /// For a machine with so many cores: three for each, at least 6, and as many from one registry.
    pub fn for_cores(cores: usize) -> TransferLimits {
        let at_once = (3 * cores).max(AT_ONCE_MIN);
        TransferLimits { at_once, per_registry: at_once }
    }

    /// Kept for images that hold none: a quarter, at least one if there are two.
    fn kept(&self) -> usize {
        (self.at_once / 4).max(usize::from(self.at_once > 1))
    }
}

/// One image's pull, as the queue knows it.
pub(crate) type PullNumber = u64;

/// A wish for a slot. The number says who came first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    pull: PullNumber,
    registry: Arc<str>,
}

/// The rule.
#[derive(Debug)]
struct Queue {
    limits: TransferLimits,
    running: usize,
    by_registry: HashMap<Arc<str>, usize>,
    by_pull: HashMap<PullNumber, usize>,
    waiting: BTreeMap<u64, Wish>,
    next: u64,
}

impl Queue {
    fn new(limits: TransferLimits) -> Queue {
        // Nothing would ever run with no slot at all.
        let limits = TransferLimits { at_once: limits.at_once.max(1), per_registry: limits.per_registry.max(1) };
        let (by_registry, by_pull, waiting) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        Queue { limits, running: 0, by_registry, by_pull, waiting, next: 0 }
    }

    fn wish(&mut self, wish: Wish) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, wish);
        number
    }

    fn withdraw(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Who runs next, if anybody may.
    fn start_next(&mut self) -> Option<u64> {
        let free = self.limits.at_once.checked_sub(self.running).filter(|free| *free > 0)?;
        let held = |wish: &Wish| self.by_pull.get(&wish.pull).copied().unwrap_or(0);
        let may_run = |wish: &Wish| {
            let at_registry = self.by_registry.get(&wish.registry).copied().unwrap_or(0);
            at_registry < self.limits.per_registry && (held(wish) == 0 || free > self.limits.kept())
        };
        let candidates = self.waiting.iter().filter(|(_, wish)| may_run(wish));
        let (number, _) = candidates.min_by_key(|(number, wish)| (held(wish), **number))?;
        let number = *number;
        let wish = self.waiting.remove(&number)?;
        self.running += 1;
        *self.by_registry.entry(wish.registry).or_default() += 1;
        *self.by_pull.entry(wish.pull).or_default() += 1;
        Some(number)
    }

    fn end(&mut self, wish: &Wish) {
        self.running = self.running.saturating_sub(1);
        take_one(&mut self.by_registry, &wish.registry);
        take_one(&mut self.by_pull, &wish.pull);
    }
}

fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Slots that tasks wait for.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    wakers: HashMap<u64, oneshot::Sender<()>>,
}

/// The right to transfer one layer; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    wish: Wish,
}

/// A wish that is not fulfilled yet. Dropped, it is withdrawn.
struct Waiting {
    slots: Slots,
    number: u64,
    wish: Option<Wish>,
}

impl Slots {
    pub(crate) fn new(limits: TransferLimits) -> Slots {
        Slots { inner: Arc::new(Mutex::new(Inner { queue: Queue::new(limits), wakers: HashMap::new() })) }
    }

    /// Waits for a slot. A dropped future takes none.
    pub(crate) async fn take(&self, pull: PullNumber, registry: &Arc<str>) -> Slot {
        let wish = Wish { pull, registry: registry.clone() };
        let (sender, receiver) = oneshot::channel();
        let mut waiting = {
            let mut inner = self.lock();
            let number = inner.queue.wish(wish.clone());
            inner.wakers.insert(number, sender);
            inner.start();
            Waiting { slots: self.clone(), number, wish: Some(wish) }
        };
        // The sender goes only with an answer: the queue lives as long as this wish.
        let _ = receiver.await;
        let wish = waiting.wish.take();
        Slot { slots: self.clone(), wish: wish.unwrap_or(Wish { pull, registry: registry.clone() }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn start(&mut self) {
        while let Some(number) = self.queue.start_next() {
            if let Some(waker) = self.wakers.remove(&number) {
                // Who does not listen any more gives the slot back when its wish is dropped.
                let _ = waker.send(());
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(wish) = self.wish.take() else { return };
        let mut inner = self.slots.lock();
        match inner.wakers.remove(&self.number) {
            Some(_) => inner.queue.withdraw(self.number),
            // It was granted between the grant and this drop.
            None => inner.queue.end(&wish),
        }
        inner.start();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.slots.lock();
        inner.queue.end(&self.wish);
        inner.start();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(at_once: usize, per_registry: usize) -> TransferLimits {
        TransferLimits { at_once, per_registry }
    }

    fn wish(pull: PullNumber, registry: &str) -> Wish {
        Wish { pull, registry: registry.into() }
    }

    /// Starts whoever may start.
    fn started(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.start_next()).collect()
    }

    #[test]
    fn a_small_image_gets_a_slot_while_a_giant_one_transfers() {
        let mut queue = Queue::new(limits(8, 8));
        for _ in 0..100 {
            queue.wish(wish(1, "r"));
        }
        assert_eq!(started(&mut queue).len(), 6, "a quarter of the slots is kept");
        let small = queue.wish(wish(2, "r"));
        assert_eq!(started(&mut queue), [small]);
        // A slot that comes free while two are held back goes to nobody but a newcomer.
        queue.end(&wish(2, "r"));
        assert_eq!(started(&mut queue), Vec::<u64>::new());
        queue.end(&wish(1, "r"));
        assert_eq!(started(&mut queue).len(), 1);
    }

    #[test]
    fn no_registry_gets_more_than_its_share() {
        let mut queue = Queue::new(limits(8, 2));
        for pull in 0..5 {
            queue.wish(wish(pull, "slow"));
        }
        assert_eq!(started(&mut queue).len(), 2);
        let other = queue.wish(wish(9, "quick"));
        assert_eq!(started(&mut queue), [other]);
    }

    #[test]
    fn slots_go_round() {
        let mut queue = Queue::new(limits(1, 1));
        let [a, b, c] = [1, 1, 2].map(|pull| queue.wish(wish(pull, "r")));
        assert_eq!(started(&mut queue), [a]);
        queue.end(&wish(1, "r"));
        assert_eq!(started(&mut queue), [b], "who waits longest, since nobody holds any");
        queue.end(&wish(1, "r"));
        assert_eq!(started(&mut queue), [c]);
        let mut queue = Queue::new(limits(3, 3));
        let first: Vec<u64> = (0..3).map(|_| queue.wish(wish(1, "r"))).collect();
        assert_eq!(started(&mut queue), first[..2]);
        let later = queue.wish(wish(2, "r"));
        assert_eq!(started(&mut queue), [later], "it holds fewest, though it came last");
    }

    #[tokio::test]
    async fn a_dropped_wait_takes_nothing() {
        let slots = Slots::new(limits(1, 1));
        let registry: Arc<str> = "r".into();
        let held = slots.take(1, &registry).await;
        let mut given_up = Box::pin(slots.take(2, &registry));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
        let mut granted = Box::pin(slots.take(3, &registry));
        assert!(futures_util::poll!(granted.as_mut()).is_pending());
        drop(given_up);
        drop(held);
        // Granted now, and given up before it looked.
        drop(granted);
        let last = slots.take(4, &registry).await;
        assert_eq!(slots.lock().queue.running, 1);
        drop(last);
        let inner = slots.lock();
        assert!(inner.queue.running == 0 && inner.queue.by_pull.is_empty() && inner.queue.by_registry.is_empty());
        assert!(inner.wakers.is_empty() && inner.queue.waiting.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_waits_while_it_could_run(
            at_once in 1..6_usize, per_registry in 1..6_usize,
            steps in proptest::collection::vec((any::<bool>(), 0..4_u64, 0..3_u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut queue = Queue::new(limits(at_once, per_registry));
            let (mut wishes, mut running) = (HashMap::new(), Vec::new());
            for (is_wish, pull, registry, index) in steps {
                if is_wish || running.is_empty() {
                    let wish = wish(pull, &registry.to_string());
                    wishes.insert(queue.wish(wish.clone()), wish);
                } else {
                    let ended: Wish = running.swap_remove(index.index(running.len()));
                    queue.end(&ended);
                }
                for number in started(&mut queue) {
                    running.push(wishes.remove(&number).expect("it waited"));
                }
                prop_assert!(running.len() <= at_once);
                for registry in 0..3_u8 {
                    let count = running.iter().filter(|wish| *wish.registry == *registry.to_string()).count();
                    prop_assert!(count <= per_registry);
                }
                // An image with no slot waits only for a full machine or a full registry.
                for wish in wishes.values() {
                    let holds_none = running.iter().all(|other| other.pull != wish.pull);
                    let at_registry = running.iter().filter(|other| other.registry == wish.registry).count();
                    prop_assert!(!holds_none || running.len() == at_once || at_registry == per_registry);
                }
            }
        }
    }
}
