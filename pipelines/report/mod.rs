//! One self-contained page: what the run learned, whether the gain is real, and what each file costs.

mod items;
mod page;
mod plot;

pub use items::{ItemAnswer, ItemCard, ItemSection, Outcome};
pub use page::{ContaminationSection, FileLine, FunnelRow, Page, SampleRow, ScoreRow, TaskSection, render};
pub use plot::{Interval, Point, Series, interval_plot, line_plot, scatter_plot, series_plot};
