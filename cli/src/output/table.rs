//! Aligned columns.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Rows under a header. Numbers stand right, all else left.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns by name; a name that starts with `#` (which is not shown) stands right.
    pub fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => (name, Align::Right),
            None => (*name, Align::Left),
        };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Without a header: names left, values beside them.
    pub fn facts() -> Self {
        Self { columns: vec![("", Align::Left), ("", Align::Left)], rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty, cells past the last column are dropped.
    pub fn row<T: fmt::Display>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(|cell| plain(&cell.to_string())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    pub fn fact(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.row([name.to_owned(), value.to_string()])
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].0.len()]).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align {
                    Align::Left => line.extend([cell, &gap]),
                    Align::Right => line.extend([&gap, cell]),
                }
                line.push_str("  ");
            }
            line.truncate(line.trim_end().len());
            line
        };
        if self.columns.iter().any(|(name, _)| !name.is_empty()) {
            writeln!(f, "{}", line(&mut self.columns.iter().map(|(name, _)| *name)))?;
        }
        for row in &self.rows {
            writeln!(f, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// `text` without characters that would move the cursor: what others have written is shown in a terminal.
pub fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&["NAME", "#REGIONS", "STATE"]);
        table.row(["n1", "12", "live"]).row(["größer", "7", ""]);
        assert_eq!(
            table.to_string(),
            "NAME    REGIONS  STATE\n\
             n1           12  live\n\
             größer        7\n"
        );
    }

    #[test]
    fn facts_have_no_header_and_text_cannot_move_the_cursor() {
        let mut table = Table::facts();
        table.fact("name", "a\u{1b}[2Jb\nc").fact("id", 7);
        assert_eq!(table.to_string(), "name  a\\u{1b}[2Jb\\nc\nid    7\n");
    }

    #[test]
    fn rows_of_another_length_fit_the_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["1"]).row(["1", "2", "3"]);
        assert_eq!(table.to_string(), "A  B\n1\n1  2\n");
    }
}
