//! Synthetic data generation: from the leaves of a skills tree to checked rows.
//!
//! # Flows
//! | leaf | question from | answer from | check |
//! |---|---|---|---|
//! | freeform skill with `questions` | the template, slots drawn by seed | the teacher, the most similar seeds as earlier turns | `verify` |
//! | freeform skill | the teacher, seeds in the prompt | the same | question filters, `verify` or plain checks |
//! | grounded skill | the teacher, with its context | the same | the same |
//! | knowledge | the teacher, on a chunk, three seed contexts as shots | the same reply | answer supported by the chunk |
//!
//! Knowledge leaves also give rows that no model wrote: their seeds, and what their document says under each heading.
//!
//! A seed of several turns stands in prompts as a script (`User: ...`, `Assistant: ...`, the last question at its end), and what a
//! teacher writes in its manner becomes a row of several turns.
//!
//! What the teacher reads stands in `sdg/prompts`, one file a flow.
//!
//! # What is promised
//! - Rows depend on tree, configuration and teacher alone: the order of arrival and interruptions change nothing.
//! - A held-out test question reaches neither a prompt nor a row ([`HeldOut`]).
//! - A rejected row is kept with its reason, also when its prompt was too long for the teacher; a leaf that the teacher gave no
//!   usable row is an event with the funnel.
//!
//! # Use
//! [`lint`] finds mistakes in templates and checks before anything runs; [`plan`] lists the work; [`generate()`] does it.
//!
//! ```
//! use espalier_sdg::evaluate_expression;
//! let context = [("day".to_owned(), serde_json::json!("5 March 2019"))].into();
//! let truth = evaluate_expression("day | parse_date('%d %B %Y')", &context)?;
//! assert_eq!(truth, "2019-03-05");
//! # Ok::<(), String>(())
//! ```

mod config;
mod conversation;
mod error;
pub mod estimate;
mod expressions;
pub mod flow;
mod generate;
mod held_out;
mod identity;
mod judge;
mod lint;
mod plan;
mod planted;
mod prompts;
pub mod reward;
mod rounds;
mod sentences;
mod shots;
mod slots;
mod verify;

pub use config::GenerateConfig;
pub use error::SdgError;
pub use expressions::{evaluate as evaluate_expression, render as render_template};
pub use generate::{Answerer, GenerateEvent, LeafGeneration, generate, generate_with};
pub use held_out::HeldOut;
pub use lint::{lint, lint_tree};
pub use plan::{Ask, Flow, Job, plan, plan_leaf};
pub use prompts::prompts_digest;
pub use reward::CheckOutcome;
pub use rounds::{LeafOutcome, LeafRounds, Review, RoundEvent, RoundOptions, RoundsOutcome, run_rounds};
pub use slots::{Drawn, capacity, draw, draw_distinct};
pub use verify::Verifier;
