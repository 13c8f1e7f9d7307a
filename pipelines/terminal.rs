//! Lines to standard output and standard error, where the reader may have gone away.

use std::io::{self, ErrorKind, Write};

/// What a shell shows of a program that the signal of a closed pipe ended: 128 and its number.
const CLOSED_PIPE: i32 = 141;

/// Prints a line on standard output, as [`print_part`] does.
pub fn print(line: &str) {
    print_part(&format!("{line}\n"));
}

/// Prints on standard output at once, without the end of a line. Where nobody reads any more (`pipeline plan | head -1`) the program ends without a word;
/// where the text cannot be written, it says so and ends: what was asked for would not be whole.
pub fn print_part(text: &str) {
    let written = write!(io::stdout(), "{text}").and_then(|()| io::stdout().flush());
    if let Err(error) = written {
        end_without_reader(&error);
        print_error(&format!("error: cannot write to standard output: {error}"));
        std::process::exit(1);
    }
}

/// Prints a line on standard error. Where nobody reads any more (`pipeline run 2>&1 | head`) the program ends; any other
/// trouble costs the line and nothing else.
pub fn print_error(line: &str) {
    if let Err(error) = writeln!(io::stderr(), "{line}") {
        end_without_reader(&error);
    }
}

fn end_without_reader(error: &io::Error) {
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(CLOSED_PIPE);
    }
}
