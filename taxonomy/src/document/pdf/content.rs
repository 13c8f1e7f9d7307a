//! The program of a page: which text it shows, and where.

use std::collections::HashMap;
use std::rc::Rc;

use super::file::{Page, Pdf};
use super::font::Font;
use super::object::{Lexer, Object};
use crate::document::{ExtractError, Limits};

/// Forms in forms deeper than this are left out.
const DEEPEST_FORM: usize = 8;

/// Most operators of a file.
const MAX_OPERATORS: usize = 20_000_000;

/// Text that one operator shows, in the page's coordinates: y grows upwards.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub text: String,
    pub x: f64,
    pub y: f64,
    /// Where it ends.
    pub end: f64,
    /// Height of the font.
    pub size: f64,
    pub bold: bool,
}

type Matrix = [f64; 6];

const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// First `a`, then `b`.
fn times(a: Matrix, b: Matrix) -> Matrix {
    [
        a[0] * b[0] + a[1] * b[2],
        a[0] * b[1] + a[1] * b[3],
        a[2] * b[0] + a[3] * b[2],
        a[2] * b[1] + a[3] * b[3],
        a[4] * b[0] + a[5] * b[2] + b[4],
        a[4] * b[1] + a[5] * b[3] + b[5],
    ]
}

#[derive(Clone, Debug)]
struct State {
    matrix: Matrix,
    font: Option<Rc<Font>>,
    size: f64,
    character_spacing: f64,
    word_spacing: f64,
    scale: f64,
    leading: f64,
    rise: f64,
}

/// Runs the programs of pages, one after another.
#[derive(Debug)]
pub(super) struct Interpreter<'a> {
    pdf: &'a Pdf<'a>,
    limits: Limits,
    /// Fonts by number of their object.
    fonts: HashMap<u32, Rc<Font>>,
    operators: usize,
    text_bytes: usize,
    /// Characters with a meaning, over all pages.
    pub known: usize,
    /// Codes without one.
    pub unknown: usize,
    runs: Vec<Run>,
}

impl<'a> Interpreter<'a> {
    pub fn new(pdf: &'a Pdf<'a>, limits: &Limits) -> Self {
        Self {
            pdf,
            limits: *limits,
            fonts: HashMap::new(),
            operators: 0,
            text_bytes: 0,
            known: 0,
            unknown: 0,
            runs: Vec::new(),
        }
    }

    /// What a page shows, in the order that it shows it.
    pub fn page(&mut self, page: &Page) -> Result<Vec<Run>, ExtractError> {
        let contents = self.pdf.get(&page.dictionary, b"Contents");
        let mut program = Vec::new();
        match &contents {
            Object::Array(parts) => {
                for part in parts.iter() {
                    program.extend(self.pdf.unpacked(&self.pdf.resolve(part))?);
                    program.push(b'\n');
                }
            }
            other => program = self.pdf.unpacked(other)?,
        }
        let rotation = self.pdf.get(&page.dictionary, b"Rotate").number().unwrap_or(0.0);
        let matrix = match (rotation as i64).rem_euclid(360) {
            90 => [0.0, -1.0, 1.0, 0.0, 0.0, 0.0],
            180 => [-1.0, 0.0, 0.0, -1.0, 0.0, 0.0],
            270 => [0.0, 1.0, -1.0, 0.0, 0.0, 0.0],
            _ => IDENTITY,
        };
        let resources = page.resources.as_ref().map_or(Object::Null, |resources| self.pdf.resolve(resources));
        let state = State {
            matrix,
            font: None,
            size: 0.0,
            character_spacing: 0.0,
            word_spacing: 0.0,
            scale: 1.0,
            leading: 0.0,
            rise: 0.0,
        };
        self.run(&program, &resources, state, DEEPEST_FORM)?;
        Ok(std::mem::take(&mut self.runs))
    }

    fn run(&mut self, program: &[u8], resources: &Object, state: State, depth: usize) -> Result<(), ExtractError> {
        let mut lexer = Lexer::new(program, 0, self.limits.depth);
        let mut operands: Vec<Object> = Vec::new();
        let mut frame = Frame { state, saved: Vec::new(), text: IDENTITY, line: IDENTITY, artifacts: Vec::new() };
        while let Some(object) = lexer.next() {
            let Object::Keyword(word) = object else {
                if operands.len() < 64 {
                    operands.push(object);
                }
                continue;
            };
            self.operators += 1;
            if self.operators > MAX_OPERATORS {
                return Err(ExtractError::Limit { what: "the number of operators", limit: MAX_OPERATORS as u64 });
            }
            match &*word {
                b"BI" => skip_picture(program, &mut lexer),
                b"Do" => self.form(operands.first(), resources, &frame, depth)?,
                b"Tf" => {
                    if let [Object::Name(name), Object::Number(size)] = &operands[..] {
                        frame.state.font = self.font(name, resources)?;
                        frame.state.size = *size;
                    }
                }
                b"Tj" | b"'" | b"\"" | b"TJ" => {
                    if &*word != b"Tj" && &*word != b"TJ" {
                        if let [Object::Number(word), Object::Number(character), _] = &operands[..] {
                            (frame.state.word_spacing, frame.state.character_spacing) = (*word, *character);
                        }
                        frame.next_line();
                    }
                    self.show(operands.last(), &mut frame)?;
                }
                word => frame.operator(word, &operands),
            }
            operands.clear();
        }
        Ok(())
    }

    fn font(&mut self, name: &[u8], resources: &Object) -> Result<Option<Rc<Font>>, ExtractError> {
        let fonts = resources.dictionary().map_or(Object::Null, |entries| self.pdf.get(entries, b"Font"));
        let Some(entry) = fonts.dictionary().and_then(|fonts| fonts.get(name)) else { return Ok(None) };
        let number = if let Object::Reference(number) = entry { Some(*number) } else { None };
        if let Some(font) = number.and_then(|number| self.fonts.get(&number)) {
            return Ok(Some(font.clone()));
        }
        let object = self.pdf.resolve(entry);
        let Some(entries) = object.dictionary() else { return Ok(None) };
        let font = Rc::new(Font::read(self.pdf, entries)?);
        if let Some(number) = number {
            self.fonts.insert(number, font.clone());
        }
        Ok(Some(font))
    }

    /// A drawing that is used by name: its text belongs to the page.
    fn form(
        &mut self,
        name: Option<&Object>,
        resources: &Object,
        frame: &Frame,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let Some(name) = name.and_then(Object::name) else { return Ok(()) };
        let forms = resources.dictionary().map_or(Object::Null, |entries| self.pdf.get(entries, b"XObject"));
        let Some(form) = forms.dictionary().map(|forms| self.pdf.get(forms, name)) else { return Ok(()) };
        let Some(entries) = form.dictionary() else { return Ok(()) };
        if depth == 0 || frame.in_artifact() || self.pdf.get(entries, b"Subtype").name() != Some(b"Form") {
            return Ok(());
        }
        let mut state = frame.state.clone();
        if let Some(matrix) = matrix(self.pdf.get(entries, b"Matrix").array().unwrap_or_default()) {
            state.matrix = times(matrix, state.matrix);
        }
        let own = self.pdf.get(entries, b"Resources");
        let program = self.pdf.unpacked(&form)?;
        self.run(&program, if own == Object::Null { resources } else { &own }, state, depth - 1)
    }

    /// Shows a string, or strings with distances between them.
    fn show(&mut self, operand: Option<&Object>, frame: &mut Frame) -> Result<(), ExtractError> {
        let Some(font) = frame.state.font.clone() else { return Ok(()) };
        let pieces = match operand {
            Some(string @ Object::String(_)) => std::slice::from_ref(string),
            Some(Object::Array(pieces)) => pieces,
            _ => return Ok(()),
        };
        let state = &frame.state;
        let start = times(frame.text, state.matrix);
        // Distances along the line count in the font's size, as the page shows it.
        let along = (start[0] * start[0] + start[1] * start[1]).sqrt();
        let height = (start[2] * start[2] + start[3] * start[3]).sqrt();
        let mut run = Run {
            text: String::new(),
            x: start[4],
            y: start[5] + state.rise * start[3],
            end: start[4],
            size: state.size.abs() * height,
            bold: font.bold,
        };
        let mut advance = 0.0;
        for piece in pieces {
            match piece {
                Object::Number(distance) => {
                    let step = -distance / 1000.0 * state.size * state.scale;
                    // A distance of a fifth of the font's height and more parts words.
                    if -distance > 200.0 && !run.text.is_empty() && !run.text.ends_with(' ') {
                        run.text.push(' ');
                    }
                    advance += step;
                }
                Object::String(string) => {
                    for glyph in font.glyphs(string) {
                        match &glyph.text {
                            Some(text) => {
                                self.known += 1;
                                run.text.push_str(text);
                            }
                            None => self.unknown += 1,
                        }
                        let word = if glyph.is_space_code { state.word_spacing } else { 0.0 };
                        advance += (glyph.width * state.size + state.character_spacing + word) * state.scale;
                    }
                }
                _ => {}
            }
        }
        run.end = run.x + advance * along;
        frame.text = times([1.0, 0.0, 0.0, 1.0, advance, 0.0], frame.text);
        let usable = [run.x, run.y, run.end, run.size].iter().all(|number| number.is_finite());
        if usable && !run.text.is_empty() && !frame.in_artifact() {
            self.text_bytes += run.text.len() + size_of::<Run>();
            if self.text_bytes > 8 * self.limits.text_bytes {
                return Err(ExtractError::Limit { what: "its text in bytes", limit: self.limits.text_bytes as u64 });
            }
            self.runs.push(run);
        }
        Ok(())
    }
}

/// The state of one program.
#[derive(Debug)]
struct Frame {
    state: State,
    saved: Vec<State>,
    text: Matrix,
    line: Matrix,
    /// For each part that is marked, whether it is no part of the text: headers, footers, page numbers.
    artifacts: Vec<bool>,
}

impl Frame {
    fn in_artifact(&self) -> bool {
        self.artifacts.contains(&true)
    }

    fn move_line(&mut self, x: f64, y: f64) {
        self.line = times([1.0, 0.0, 0.0, 1.0, x, y], self.line);
        self.text = self.line;
    }

    fn next_line(&mut self) {
        self.move_line(0.0, -self.state.leading);
    }

    fn operator(&mut self, word: &[u8], operands: &[Object]) {
        let first = operands.first().and_then(Object::number);
        match (word, first) {
            (b"q", _) if self.saved.len() < 256 => self.saved.push(self.state.clone()),
            (b"Q", _) => {
                if let Some(state) = self.saved.pop() {
                    self.state = state;
                }
            }
            (b"cm", _) => {
                if let Some(matrix) = matrix(operands) {
                    self.state.matrix = times(matrix, self.state.matrix);
                }
            }
            (b"BT", _) => (self.text, self.line) = (IDENTITY, IDENTITY),
            (b"Tm", _) => {
                if let Some(matrix) = matrix(operands) {
                    (self.text, self.line) = (matrix, matrix);
                }
            }
            (b"Td" | b"TD", Some(x)) => {
                let y = operands.get(1).and_then(Object::number).unwrap_or(0.0);
                if word == b"TD" {
                    self.state.leading = -y;
                }
                self.move_line(x, y);
            }
            (b"T*", _) => self.next_line(),
            (b"Tc", Some(spacing)) => self.state.character_spacing = spacing,
            (b"Tw", Some(spacing)) => self.state.word_spacing = spacing,
            (b"Tz", Some(scale)) => self.state.scale = scale / 100.0,
            (b"TL", Some(leading)) => self.state.leading = leading,
            (b"Ts", Some(rise)) => self.state.rise = rise,
            (b"BMC" | b"BDC", _) if self.artifacts.len() < 1024 => {
                self.artifacts.push(operands.first().and_then(Object::name) == Some(b"Artifact"));
            }
            (b"EMC", _) => {
                self.artifacts.pop();
            }
            _ => {}
        }
    }
}

fn matrix(operands: &[Object]) -> Option<Matrix> {
    let numbers: Vec<f64> = operands.iter().filter_map(Object::number).collect();
    numbers.try_into().ok()
}

/// Goes behind a picture that stands in the program: behind the first `EI` that stands alone.
fn skip_picture(program: &[u8], lexer: &mut Lexer<'_>) {
    let rest = program.get(lexer.at..).unwrap_or_default();
    let end = rest.windows(4).position(|window| {
        window[0].is_ascii_whitespace() && &window[1..3] == b"EI" && window[3].is_ascii_whitespace()
    });
    lexer.at = end.map_or(program.len(), |end| lexer.at + end + 3);
}
