//! Commands that do the same to several things: all are tried, each failure is told, the worst status is kept.
//!
//! Invariant: `the_worst_status_wins`.

use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::output::Report;
use crate::output::table::Table;
use crate::session::Session;

/// Statuses from worst to best: interrupted, failed, wrong use, undecided.
const WORST_FIRST: [u8; 4] = [130, 1, 2, 3];

/// What became of one thing.
#[derive(Debug)]
pub(super) struct Done {
    /// As typed.
    pub(super) name: String,
    /// The word for it in the table, e.g. `removed`.
    pub(super) state: &'static str,
    /// What a person wants to know beside that.
    pub(super) detail: String,
    /// Fields beside `name` and `state`.
    pub(super) fields: Json,
}

/// The outcome of a command for each of its arguments.
pub(super) struct Each {
    kind: &'static str,
    results: Vec<(String, Result<Done, Failure>)>,
}

/// Does `work` for each name, shows what became of them, and fails when one failed.
pub(super) fn each(
    kind: &'static str,
    names: &[String],
    session: &Session,
    mut work: impl FnMut(&str) -> Result<Done, Failure>,
) -> Result<(), Failure> {
    let results = names.iter().map(|name| (name.clone(), work(name))).collect();
    Each { kind, results }.end(session)
}

impl Each {
    fn end(self, session: &Session) -> Result<(), Failure> {
        // A single failure is the command's own.
        if let [(_, Err(failure))] = self.results.as_slice() {
            return Err(failure.clone());
        }
        session.screen.show(&self)?;
        let failures: Vec<&Failure> = self.results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
        failures.iter().for_each(|failure| session.tell(failure));
        match worst(failures.iter().map(|failure| failure.exit_code())) {
            Some(exit) => Err(Failure::told(exit)),
            None => Ok(()),
        }
    }
}

/// The status that says most about several.
pub(super) fn worst(statuses: impl IntoIterator<Item = u8>) -> Option<u8> {
    let rank = |status: &u8| WORST_FIRST.iter().position(|known| known == status).unwrap_or(0);
    statuses.into_iter().min_by_key(rank)
}

impl Report for Each {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn fields(&self) -> Json {
        let items = self.results.iter().map(|(name, result)| match result {
            Ok(done) => {
                let mut item = json!({ "name": name, "state": done.state });
                if let (Some(item), Json::Object(more)) = (item.as_object_mut(), &done.fields) {
                    item.extend(more.clone());
                }
                item
            }
            Err(failure) => json!({ "name": name, "state": "failed", "error": failure.json_body() }),
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    fn table(&self, _wide: bool) -> Table {
        self.results.iter().fold(Table::new(["NAME", "STATE", "DETAIL"]), |table, (name, result)| match result {
            Ok(done) => table.row([name.as_str(), done.state, &done.detail]),
            Err(_) => table.row([name.as_str(), "failed", ""]),
        })
    }

    fn names(&self) -> Vec<String> {
        self.results.iter().filter_map(|(_, result)| result.as_ref().ok()).map(|done| done.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_status_wins() {
        let table: [(&[u8], Option<u8>); 5] =
            [(&[], None), (&[3], Some(3)), (&[3, 2], Some(2)), (&[2, 1, 3], Some(1)), (&[1, 130], Some(130))];
        for (statuses, want) in table {
            assert_eq!(worst(statuses.iter().copied()), want, "{statuses:?}");
        }
    }
}
