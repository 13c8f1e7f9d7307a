//! `pipeline eval list`: the tasks that come with the program.

use super::Session;
use super::tasks::aligned;
use crate::outcome::Status;
use anyhow::Result;
use espalier_eval::tasks::{Listed, list as all_tasks};

/// `pipeline eval list`.
pub fn list(session: Session<'_>) -> Result<Status> {
    let tasks = all_tasks()?;
    let row = |task: &Listed| {
        let data = match task.documents {
            Some(count) => format!("{count} built in"),
            None => "--data-dir".to_owned(),
        };
        let shots = format!("{}-shot", task.few_shot);
        [task.task.clone(), data, shots, task.metrics.join(", "), task.licence.unwrap_or_default().to_owned()]
    };
    // The subjects of a group say no more than the group.
    let mut rows: Vec<[String; 5]> = tasks.iter().filter(|task| task.group.is_none()).map(row).collect();
    let mut groups: Vec<&str> = tasks.iter().filter_map(|task| task.group.as_deref()).collect();
    groups.dedup();
    for group in groups {
        let own: Vec<&Listed> = tasks.iter().filter(|task| task.group.as_deref() == Some(group)).collect();
        let built_in: usize = own.iter().filter_map(|task| task.documents).sum();
        let first = own[0];
        rows.push([
            group.to_owned(),
            if built_in > 0 { format!("{built_in} built in") } else { "--data-dir".to_owned() },
            format!("{}-shot", first.few_shot),
            first.metrics.join(", "),
            format!("{} ({} tasks, {}_*)", first.licence.unwrap_or_default(), own.len(), group),
        ]);
    }
    for line in aligned(&rows) {
        session.reporter.line(line.trim_start());
    }
    session.reporter.result(serde_json::json!({"tasks": tasks}));
    Ok(Status::Done)
}
