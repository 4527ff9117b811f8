//! One JSON object per event, for programs.

use serde_json::{Value as Json, json};
use windlass_pull::events::{Event, EventSink, LayerState};

use super::words;

/// Writes lines through `write`.
pub(super) struct JsonLines<W> {
    write: W,
}

impl<W: Fn(&str)> JsonLines<W> {
    pub(super) fn new(write: W) -> JsonLines<W> {
        JsonLines { write }
    }
}

impl<W: Fn(&str) + Send + Sync> EventSink for JsonLines<W> {
    fn event(&self, event: Event) {
        if let Some(object) = object(&event) {
            (self.write)(&format!("{object}\n"));
        }
    }
}

fn object(event: &Event) -> Option<Json> {
    Some(match event {
        Event::Resolved { image, platform, digest, layers } => {
            let layers =
                layers.iter().map(|layer| json!({ "digest": layer.digest.as_str(), "sizeBytes": layer.size_bytes }));
            json!({
                "event": "resolved", "image": **image, "platform": platform, "digest": digest.as_str(),
                "layers": layers.collect::<Vec<_>>(),
            })
        }
        Event::Layer { image, layer, state } => {
            let (word, done_bytes) = match state {
                LayerState::AlreadyHere => ("already-here", None),
                LayerState::Waiting => ("waiting", None),
                LayerState::Downloading { done_bytes } => ("downloading", Some(*done_bytes)),
                LayerState::Unpacking => ("unpacking", None),
                LayerState::Done => ("done", None),
            };
            let mut object = json!({ "event": "layer", "image": **image, "layer": layer, "state": word });
            if let Some(done_bytes) = done_bytes {
                object["doneBytes"] = done_bytes.into();
            }
            object
        }
        Event::Committing { image } => json!({ "event": "committing", "image": **image }),
        Event::Finished { image, id, outcome } => {
            json!({ "event": "finished", "image": **image, "id": id.as_str(), "outcome": words::outcome(*outcome) })
        }
        Event::Failed { image } => json!({ "event": "failed", "image": **image }),
        Event::Warning { image, text } => json!({ "event": "warning", "image": **image, "text": text }),
        Event::Waiting { image, pod, delay, reason } => json!({
            "event": "waiting", "image": **image, "pod": pod, "reason": reason, "delaySeconds": delay.as_secs_f64(),
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_every_event() {
        let table = [
            (Event::Committing { image: "a".into() }, r#"{"event":"committing","image":"a"}"#),
            (
                Event::Layer { image: "a".into(), layer: 2, state: LayerState::Downloading { done_bytes: 7 } },
                r#"{"doneBytes":7,"event":"layer","image":"a","layer":2,"state":"downloading"}"#,
            ),
            (
                Event::Layer { image: "a".into(), layer: 0, state: LayerState::AlreadyHere },
                r#"{"event":"layer","image":"a","layer":0,"state":"already-here"}"#,
            ),
        ];
        for (event, want) in table {
            assert_eq!(object(&event).map(|object| object.to_string()).as_deref(), Some(want));
        }
    }
}
