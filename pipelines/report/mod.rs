//! One self-contained page: what the run learned, whether the gain is real, and what each file costs.

mod items;
mod page;
mod plot;
mod rows;

pub use items::{ItemAnswer, ItemCard, ItemSection, Outcome};
pub use page::{ContaminationSection, FileLine, Page, ScoreRow, TaskSection, render};
pub use plot::{Bars, Interval, Point, Series, bar_plot, interval_plot, line_plot, scatter_plot, series_plot};
pub use rows::{LeafLine, RowCard, RowSection, TwinGroup};
