//! One line per change of state, for logs and pipes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_pull::events::{Event, EventSink, LayerInfo, LayerState};

use super::words;
use crate::failure::shown;
use crate::output::size::bytes;

/// Writes lines through `write`.
pub(super) struct Plain<W> {
    write: W,
    seen: Mutex<HashMap<Arc<str>, Image>>,
}

/// What was said about an image.
struct Image {
    layers: Arc<[LayerInfo]>,
    said: Vec<Option<&'static str>>,
}

impl<W: Fn(&str)> Plain<W> {
    pub(super) fn new(write: W) -> Plain<W> {
        Plain { write, seen: Mutex::default() }
    }

    fn say(&self, text: &str) {
        (self.write)(&format!("{text}\n"));
    }

    /// The line for a layer, unless its state has been said.
    fn layer(&self, image: &Arc<str>, layer: usize, state: LayerState) -> Option<String> {
        let word = match state {
            LayerState::AlreadyHere => "here already",
            LayerState::Downloading { .. } => "downloading",
            LayerState::Done => "done",
            LayerState::Waiting | LayerState::Unpacking => return None,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.get_mut(image)?;
        let (info, said) = (known.layers.get(layer)?, known.said.get_mut(layer)?);
        if said.replace(word) == Some(word) {
            return None;
        }
        let (at, of) = (layer + 1, known.layers.len());
        let digest = words::short(info.digest.as_str());
        Some(format!("{}: layer {at}/{of} {digest} {word} ({})", shown(image), bytes(info.size_bytes)))
    }
}

impl<W: Fn(&str) + Send + Sync> EventSink for Plain<W> {
    fn event(&self, event: Event) {
        let line = match &event {
            Event::Resolved { image, layers, .. } => {
                let known = Image { layers: layers.clone(), said: vec![None; layers.len()] };
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(image.clone(), known);
                words::line(&event)
            }
            Event::Layer { image, layer, state } => self.layer(image, *layer, *state),
            Event::Finished { image, outcome, .. } => Some(format!("{}: {}", shown(image), words::outcome(*outcome))),
            Event::Failed { image } => Some(format!("{}: failed", shown(image))),
            _ => words::line(&event),
        };
        if let Some(line) = line {
            self.say(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::digest::Digest;
    use windlass_pull::events::Outcome;

    use super::*;

    #[test]
    fn plain_says_each_change_once() {
        let said = Mutex::new(String::new());
        let plain = Plain::new(|text: &str| said.lock().unwrap().push_str(text));
        let image: Arc<str> = "r.example/a:1".into();
        let digest = Digest::sha256(b"x");
        let layers = [LayerInfo { digest: digest.clone(), size_bytes: 1_000 }].into();
        plain.event(Event::Resolved {
            image: image.clone(),
            platform: "linux/amd64".into(),
            digest: digest.clone(),
            layers,
        });
        for state in [
            LayerState::Waiting,
            LayerState::Downloading { done_bytes: 1 },
            LayerState::Downloading { done_bytes: 500 },
            LayerState::Unpacking,
            LayerState::Done,
            LayerState::Done,
        ] {
            plain.event(Event::Layer { image: image.clone(), layer: 0, state });
        }
        plain.event(Event::Layer { image: image.clone(), layer: 7, state: LayerState::Done });
        plain.event(Event::Finished { image, id: digest.clone(), outcome: Outcome::Pulled });
        let short = words::short(digest.as_str());
        let want = format!(
            "r.example/a:1  linux/amd64  {digest}  1 layer, 1.00 kB\n\
             r.example/a:1: layer 1/1 {short} downloading (1.00 kB)\n\
             r.example/a:1: layer 1/1 {short} done (1.00 kB)\n\
             r.example/a:1: pulled\n"
        );
        assert_eq!(*said.lock().unwrap(), want);
    }
}
