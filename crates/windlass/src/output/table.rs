//! Columns with three spaces between them, as kubectl prints them.
//!
//! Invariants: `columns_line_up_and_lines_have_no_tail`, `cells_stay_on_their_line`.

use crate::failure::shown;

/// Rows under headings. Cells are made safe for a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Sentences below the columns.
    lines: Vec<String>,
}

impl Table {
    /// A table with its headings.
    pub(crate) fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Table {
        Table::bare().row(headings)
    }

    /// A table without headings.
    pub(crate) fn bare() -> Table {
        Table { rows: Vec::new(), lines: Vec::new() }
    }

    /// Adds a row; empty cells print as `-`.
    pub(crate) fn row<S: Into<String>>(mut self, cells: impl IntoIterator<Item = S>) -> Table {
        let cell = |text: String| if text.is_empty() { "-".to_owned() } else { shown(&text).replace('\n', " ") };
        self.rows.push(cells.into_iter().map(|text| cell(text.into())).collect());
        self
    }

    /// Adds a sentence below the columns.
    pub(crate) fn line(mut self, text: impl AsRef<str>) -> Table {
        self.lines.push(shown(text.as_ref()));
        self
    }

    /// The text, one line per row.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
            text.push('\n');
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let text = Table::new(["NAME", "SIZE", "ID"]).row(["a-long-name", "1", "x"]).row(["b", "", ""]).render();
        assert_eq!(text, "NAME          SIZE   ID\na-long-name   1      x\nb             -      -\n");
    }

    #[test]
    fn cells_stay_on_their_line() {
        assert_eq!(Table::new(["A"]).row(["x\ny\u{1b}z"]).render(), "A\nx y\\u{1b}z\n");
    }
}
