//! Columns that stand under each other.

use std::fmt::Write;

/// Which side of its column a cell stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

/// A column's head, and where its cells stand.
pub type Column = (&'static str, Side);

/// Lays rows out in columns. A column is as wide as its widest cell so far: rows that come later, page by page, stand
/// under the first ones unless they are wider.
pub struct Layout {
    columns: &'static [Column],
    widths: Vec<usize>,
    headed: bool,
}

impl Layout {
    /// Nothing yet.
    pub fn new(columns: &'static [Column]) -> Self {
        Layout { columns, widths: columns.iter().map(|(head, _)| head.len()).collect(), headed: false }
    }

    /// The next rows as text; the first time, below the heads.
    pub fn rows(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if !self.headed {
            self.headed = true;
            self.line(&mut text, self.columns.iter().map(|(head, _)| *head));
        }
        for row in rows {
            self.line(&mut text, row.iter().map(String::as_str));
        }
        text
    }

    fn line<'c>(&self, text: &mut String, cells: impl Iterator<Item = &'c str>) {
        let mut line = String::new();
        for ((cell, width), (_, side)) in cells.zip(&self.widths).zip(self.columns) {
            let _ = match side {
                Side::Left => write!(line, "{cell:<width$}  "),
                Side::Right => write!(line, "{cell:>width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    /// How wide each column is.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_each_other() {
        let mut layout = Layout::new(&[("NAME", Side::Left), ("N", Side::Right), ("LAST", Side::Left)]);
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        let text = layout.rows(&[row(["a", "1", "x"]), row(["longer", "1000", ""])]);
        assert_eq!(text, "NAME       N  LAST\na          1  x\nlonger  1000\n");
        assert_eq!(layout.rows(&[row(["b", "2", "y"])]), "b          2  y\n", "no heads again, same columns");
    }
}
