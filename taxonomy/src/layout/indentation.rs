//! Indentation: one width throughout a file, and lists that are either all indented below their key or none.

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StructureStyle};

use super::Flaw;
use crate::leaf::Place;

pub(super) fn check(text: &str) -> Vec<Flaw> {
    let is_node = |event: &Event<'_>| event.is_node() || matches!(event, Event::SequenceEnd | Event::MappingEnd);
    let events = Parser::new_from_str(text).map_while(Result::ok).filter(|(event, _)| is_node(event)).collect();
    let mut check = Check {
        lines: text.split('\n').collect(),
        events,
        at: 0,
        width: None,
        lists_indented: None,
        flaws: Vec::new(),
    };
    check.node(Parent::Root);
    check.flaws
}

/// What a value stands in.
#[derive(Clone, Copy, Debug)]
enum Parent {
    Root,
    /// The value of a key in this column.
    Key(usize),
    /// An item of a list whose hyphens stand in this column.
    Hyphen(usize),
    /// An item or a key in braces or brackets; in this column where it begins a line.
    Flow(usize),
}

struct Check<'a> {
    lines: Vec<&'a str>,
    events: Vec<(Event<'a>, Span)>,
    at: usize,
    /// Columns of a step, once one was seen.
    width: Option<usize>,
    lists_indented: Option<bool>,
    flaws: Vec<Flaw>,
}

impl<'a> Check<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        let next = self.events.get(self.at).cloned();
        self.at += 1;
        next
    }

    /// Whether a collection goes on; its end is taken.
    fn goes_on(&mut self) -> bool {
        match self.events.get(self.at) {
            None => false,
            Some((Event::SequenceEnd | Event::MappingEnd, _)) => {
                self.at += 1;
                false
            }
            Some(_) => true,
        }
    }

    fn node(&mut self, parent: Parent) {
        let Some((event, span)) = self.next() else { return };
        let start = span.start;
        match event {
            Event::SequenceStart(StructureStyle::Block, ..) => {
                let column = self.list_column(parent, &start);
                while self.goes_on() {
                    self.node(Parent::Hyphen(column));
                }
            }
            Event::MappingStart(StructureStyle::Block, ..) => {
                self.expect(parent, &start);
                while self.goes_on() {
                    let column = self.events[self.at].1.start.col();
                    self.key();
                    self.node(Parent::Key(column));
                }
            }
            Event::SequenceStart(StructureStyle::Flow, ..) => {
                self.expect(parent, &start);
                let column = self.first_inside(&start);
                while self.inside(&start) {
                    self.node(Parent::Flow(column));
                }
            }
            Event::MappingStart(StructureStyle::Flow, ..) => {
                self.expect(parent, &start);
                let column = self.first_inside(&start);
                while self.inside(&start) {
                    let key = self.events[self.at].1.start.col();
                    self.node(Parent::Flow(column));
                    self.node(Parent::Key(key));
                }
            }
            // Where the `|` of a block text stands is not told; its lines may be indented at will.
            Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {}
            // A value that is not there.
            Event::Scalar(..) if span.start == span.end => {}
            _ => self.expect(parent, &start),
        }
    }

    /// A key of a block mapping, whose column YAML itself holds.
    fn key(&mut self) {
        let column = self.events[self.at].1.start.col();
        self.node(Parent::Flow(column));
    }

    /// The column of a list's hyphens.
    fn list_column(&mut self, parent: Parent, start: &Marker) -> usize {
        let Parent::Key(key) = parent else {
            self.expect(parent, start);
            return start.col();
        };
        // The parser may give the place of the first item: the hyphen begins the line.
        let column = self.indent(start.line());
        let indented = column != key;
        if *self.lists_indented.get_or_insert(indented) {
            let expected = if indented { self.step(key, column) } else { key + self.width.unwrap_or(2) };
            self.compare(expected, column, start.line());
        } else {
            self.compare(key, column, start.line());
        }
        column
    }

    /// Holds a value that begins its line to the column that it must have there.
    fn expect(&mut self, parent: Parent, start: &Marker) {
        let found = start.col();
        if self.indent(start.line()) != found {
            return;
        }
        let expected = match parent {
            Parent::Root => 0,
            Parent::Key(column) | Parent::Hyphen(column) => self.step(column, found),
            Parent::Flow(column) => column,
        };
        self.compare(expected, found, start.line());
    }

    /// The column of what stands in braces or brackets that open here.
    fn first_inside(&mut self, open: &Marker) -> usize {
        let Some((_, first)) = self.events.get(self.at) else { return 0 };
        let first = first.start;
        if first.line() == open.line() { first.col() } else { self.step(self.indent(open.line()), first.col()) }
    }

    /// Whether more stands in braces or brackets; their end is taken, which begins a line where the line of their opening began.
    fn inside(&mut self, open: &Marker) -> bool {
        let Some((event, span)) = self.events.get(self.at) else { return false };
        if !matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            return true;
        }
        let end = span.start;
        self.at += 1;
        if self.indent(end.line()) == end.col() {
            self.compare(self.indent(open.line()), end.col(), end.line());
        }
        false
    }

    fn compare(&mut self, expected: usize, found: usize, line: usize) {
        if expected != found {
            self.flaws.push(Flaw {
                rule: "indentation",
                place: Place { line, column: found + 1 },
                message: format!("indented by {found}, and the rest of the file asks for {expected}"),
            });
        }
    }

    /// A column one step deeper; the first step of a file says how wide all are.
    fn step(&mut self, from: usize, found: usize) -> usize {
        from + *self.width.get_or_insert(found.saturating_sub(from))
    }

    fn indent(&self, line: usize) -> usize {
        let line = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        line.len() - line.trim_start_matches(' ').len()
    }
}

#[cfg(test)]
mod tests {
    use crate::layout::lint;

    fn lines(text: &str) -> Vec<usize> {
        lint(text).iter().map(|flaw| flaw.place.line).collect()
    }

    #[test]
    fn one_width_and_one_kind_of_list() {
        assert_eq!(lines("a:\n  b:\n    - c: 1\n      d:\n        - 2\n"), [0; 0]);
        assert_eq!(lines("a:\n- b\nc:\n- d\n"), [0; 0]);
        assert_eq!(lines("a:\n- b\nc:\n  - d\n"), [4]);
        assert_eq!(lines("a:\n  - b\nc:\n- d\n"), [4]);
        assert_eq!(lines("a:\n  b:\n      c: 1\n"), [3]);
        assert_eq!(lines("  a: 1\n"), [1]);
        assert_eq!(lines("a:\n    b\nc:\n  d\n"), [4]);
        assert_eq!(lines("a: |\n      long\n    \u{20}text\nb:\n  c: 1\n"), [0; 0]);
    }

    #[test]
    fn brackets_over_lines() {
        assert_eq!(lines("a: {x: 1,\n    y: 2}\n"), [0; 0]);
        assert_eq!(lines("a: {x: 1,\n   y: 2}\n"), [2]);
        assert_eq!(lines("a: [\n  1,\n  2\n]\n"), [0; 0]);
        assert_eq!(lines("a: [\n  1,\n   2\n  ]\n"), [3, 4]);
    }
}
