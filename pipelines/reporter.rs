//! Readers of the event stream: progress bars with rate and time left, JSON lines, and the run's log file.

use crate::events::Event;
use crate::terminal::{print, print_error};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Progress bars on standard error, results on standard output.
    #[default]
    Human,
    /// Only what was asked for, warnings and errors.
    Quiet,
    /// One JSON event a line on standard output.
    Json,
}

/// Sends every event to the terminal and, once a run folder is known, to its log.
#[derive(Debug)]
pub struct Reporter {
    output: Output,
    bars: Mutex<HashMap<String, ProgressBar>>,
    log: Mutex<Option<File>>,
}

impl Reporter {
    /// A reporter for the chosen output.
    pub fn new(output: Output) -> Self {
        Self { output, bars: Mutex::default(), log: Mutex::default() }
    }

    /// What the terminal shows.
    pub fn output(&self) -> Output {
        self.output
    }

    /// From here on every event is also appended, with its time, to `logs/events.jsonl` of a run folder.
    pub fn log_to(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        *lock(&self.log) = Some(file);
        Ok(())
    }

    /// Prints a line of what a person asked for; with `--json` the result object says it.
    pub fn line(&self, text: impl AsRef<str>) {
        if self.output != Output::Json {
            self.suspend(|| print(text.as_ref()));
        }
    }

    /// Prints what a command that writes files has to say at its end: nothing with `--json` or `--quiet`.
    pub fn closing(&self, text: impl AsRef<str>) {
        if self.output == Output::Human {
            self.line(text);
        }
    }

    /// Ends a command with its result object (the last line with `--json`).
    pub fn result(&self, result: serde_json::Value) {
        self.send(&Event::Result { result });
    }

    /// Takes one event.
    pub fn send(&self, event: &Event) {
        self.write_log(event);
        match self.output {
            Output::Json => {
                if let Ok(line) = serde_json::to_string(event) {
                    print(&line);
                }
            }
            Output::Quiet => {
                if let Event::Warning { stage, message } = event {
                    print_error(&format!("warning: {stage}: {message}"));
                }
            }
            Output::Human => self.show(event),
        }
    }

    fn write_log(&self, event: &Event) {
        // Progress is a hundred lines a second: it stays out of the log.
        if matches!(event, Event::Progress { .. }) {
            return;
        }
        if let Some(file) = lock(&self.log).as_mut() {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
            if let Ok(serde_json::Value::Object(mut object)) = serde_json::to_value(event) {
                object.insert("time".into(), seconds.into());
                let _ = writeln!(file, "{}", serde_json::Value::Object(object));
            }
        }
    }

    fn show(&self, event: &Event) {
        match event {
            Event::StageSkipped { stage, reason } => {
                self.suspend(|| print_error(&format!("{stage:>12}  up to date: {reason}")));
            }
            Event::StageStarted { stage, reasons } => {
                self.suspend(|| print_error(&format!("{stage:>12}  runs: {}", reasons.join("; "))));
            }
            Event::Progress { stage, part, done, total, unit, detail } => {
                self.advance(stage, part, *done, *total, unit, detail);
            }
            Event::StageFinished { stage, seconds, summary } => {
                self.clear_bars();
                print_error(&format!("{stage:>12}  done in {}: {summary}", duration(*seconds)));
            }
            Event::Note { stage, message } => self.suspend(|| print_error(&format!("{stage:>12}  {message}"))),
            Event::Warning { stage, message } => {
                self.suspend(|| print_error(&format!("{stage:>12}  warning: {message}")));
            }
            Event::Figures { .. } => {}
            Event::Result { .. } => self.clear_bars(),
        }
    }

    fn advance(&self, stage: &str, part: &str, done: u64, total: u64, unit: &str, detail: &str) {
        let mut bars = lock(&self.bars);
        let bar = bars.entry(format!("{stage}/{part}")).or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total.max(1)), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style(unit, total));
            bar.set_prefix(format!("{stage:>12}"));
            bar.enable_steady_tick(Duration::from_millis(250));
            // What was done before this process started must not count as this process' speed.
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        bar.set_length(total.max(done).max(1));
        bar.set_position(done);
        bar.set_message(if detail.is_empty() { part.to_owned() } else { format!("{part} {detail}") });
        if total > 0 && done >= total {
            bar.finish_and_clear();
            bars.remove(&format!("{stage}/{part}"));
        }
    }

    fn suspend(&self, print: impl FnOnce()) {
        let bars = lock(&self.bars);
        match bars.values().next() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn clear_bars(&self) {
        for (_, bar) in lock(&self.bars).drain() {
            bar.finish_and_clear();
        }
    }
}

fn style(unit: &str, total: u64) -> ProgressStyle {
    let template = match (unit, total) {
        ("bytes", 0) => "{prefix}  {spinner} {bytes} {bytes_per_sec} {msg}".to_owned(),
        ("bytes", _) => "{prefix}  [{bar:28}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {msg}".to_owned(),
        (_, 0) => "{prefix}  {spinner} {elapsed} {msg}".to_owned(),
        _ => format!("{{prefix}}  [{{bar:28}}] {{pos}}/{{len}} {unit} {{per_sec:0}} {{eta}} left  {{msg}}"),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Seconds as a person reads them: `0.4 s`, `42 s`, `3 min 20 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 60 { format!("{whole} s") } else { format!("{} min {} s", whole / 60, whole % 60) }
}

/// Bytes as a person reads them: `98.4 MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A poisoned lock only means that another thread panicked while printing: the data is still good.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(0.44), "0.4 s");
        assert_eq!(duration(59.6), "1 min 0 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(size(98_362_432), "98.4 MB");
    }

    #[test]
    fn the_log_keeps_time_and_leaves_progress_out() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("logs/events.jsonl");
        let reporter = Reporter::new(Output::Quiet);
        reporter.log_to(&path)?;
        reporter.send(&Event::Note { stage: "train".into(), message: "hello".into() });
        reporter.send(&Event::Progress {
            stage: "train".into(),
            part: String::new(),
            done: 1,
            total: 2,
            unit: "steps".into(),
            detail: String::new(),
        });
        let text = std::fs::read_to_string(&path)?;
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("\"event\":\"note\"") && text.contains("\"time\":"));
        Ok(())
    }
}
