//! `windlass fsck --convert`: layers that are here, rewritten into the form that pulls use now.

use serde_json::{Value as Json, json};
use windlass_store::{Conversion, ConvertReport, ConvertedLayer, LayerForm, TarIs};

use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;
use crate::wire::{store_failure, store_to_write};

/// Status when a layer could not be converted.
const FAILED: u8 = 1;

pub(super) fn run(session: &Session) -> Result<(), Failure> {
    let store = store_to_write(&session.load()?.node)?;
    let mut done = 0;
    let mut told = |layer: &ConvertedLayer, all: usize| {
        done += 1;
        match &layer.outcome {
            Conversion::Already => {}
            outcome @ (Conversion::Converted(_) | Conversion::Skipped(_) | Conversion::Failed { .. }) => {
                session.note(&format!("layer {done} of {all}: {} {}", layer.diff_id, word(outcome)));
            }
        }
    };
    let report = store.convert(&mut told).map_err(|error| store_failure("cannot convert the store", &error))?;
    let has_failed = report.layers.iter().any(|layer| matches!(layer.outcome, Conversion::Failed { .. }));
    session.screen.show(&Converted(report))?;
    if has_failed { Err(Failure::told(FAILED)) } else { Ok(()) }
}

struct Converted(ConvertReport);

const fn form(form: LayerForm) -> &'static str {
    match form {
        LayerForm::Directory => "directory",
        LayerForm::ImageFile => "image-file",
    }
}

const fn tar(tar: TarIs) -> &'static str {
    match tar {
        TarIs::Exact => "exact",
        TarIs::ReadBack => "read-back",
    }
}

const fn word(outcome: &Conversion) -> &'static str {
    match outcome {
        Conversion::Converted(_) => "converted",
        Conversion::Already => "already",
        Conversion::Skipped(_) => "skipped",
        Conversion::Failed { .. } => "failed",
    }
}

/// What a person wants to know beside the word.
fn detail(outcome: &Conversion) -> String {
    match outcome {
        Conversion::Converted(Some(TarIs::Exact)) => "holds the layer's own tar".to_owned(),
        Conversion::Converted(Some(TarIs::ReadBack)) => "holds a tar read back from the directory".to_owned(),
        Conversion::Converted(None) | Conversion::Already => String::new(),
        Conversion::Skipped(why) | Conversion::Failed { why, .. } => why.clone(),
    }
}

impl Converted {
    fn count(&self, wanted: &str) -> usize {
        self.0.layers.iter().filter(|layer| word(&layer.outcome) == wanted).count()
    }
}

impl Report for Converted {
    fn kind(&self) -> &'static str {
        "ConvertReport"
    }

    fn fields(&self) -> Json {
        let layers = self.0.layers.iter().map(|layer| {
            let mut item = json!({
                "chainId": layer.chain_id.as_str(),
                "diffId": layer.diff_id.as_str(),
                "outcome": word(&layer.outcome),
            });
            match &layer.outcome {
                Conversion::Converted(holds) => {
                    if let Some(holds) = holds {
                        item["tar"] = tar(*holds).into();
                    }
                }
                Conversion::Already => {}
                Conversion::Skipped(why) => item["why"] = why.as_str().into(),
                Conversion::Failed { why, reason } => {
                    item["why"] = why.as_str().into();
                    item["class"] = reason.class().into();
                }
            }
            item
        });
        json!({
            "form": form(self.0.form),
            "converted": self.count("converted"),
            "already": self.count("already"),
            "skipped": self.count("skipped"),
            "failed": self.count("failed"),
            "layers": layers.collect::<Vec<_>>(),
        })
    }

    fn table(&self, wide: bool) -> Table {
        let shown: Vec<&ConvertedLayer> =
            self.0.layers.iter().filter(|layer| wide || layer.outcome != Conversion::Already).collect();
        let mut table = Table::bare();
        if !shown.is_empty() {
            table = Table::new(["LAYER", "OUTCOME", "DETAIL"]);
        }
        for layer in shown {
            table = table.row([layer.diff_id.as_str(), word(&layer.outcome), &detail(&layer.outcome)]);
        }
        let counts = ["converted", "already", "skipped", "failed"];
        let counts = counts.map(|word| format!("{} {word}", self.count(word))).join(", ");
        table.line(format!("to {}: {counts}", form(self.0.form)))
    }

    /// What was converted.
    fn names(&self) -> Vec<String> {
        let done = self.0.layers.iter().filter(|layer| matches!(layer.outcome, Conversion::Converted(_)));
        done.map(|layer| layer.diff_id.to_string()).collect()
    }
}
