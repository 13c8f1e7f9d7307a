//! Requests that have no place yet.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::request::Request;

/// A request whose prompt is known, waiting for a place.
pub(crate) struct Task<'a, T> {
    /// What its events carry back to the one who asked.
    pub(crate) ticket: T,
    pub(crate) request: Cow<'a, Request>,
    /// Which of the engine's adapters writes the answer.
    pub(crate) adapter: Option<usize>,
    /// The prompt as the model will see it.
    pub(crate) prompt: Vec<u32>,
    /// Tokens of the prompt that were taken away because it did not fit.
    pub(crate) cut: usize,
}

impl<T> Task<'_, T> {
    /// The most positions whose keys and values the sequence will hold.
    pub(crate) fn most_positions(&self, context: usize) -> usize {
        most_positions(&self.request, self.prompt.len(), context)
    }
}

/// The most positions that a sequence holds. The last token of a prompt that is only scored is never read.
pub(crate) fn most_positions(request: &Request, prompt: usize, context: usize) -> usize {
    match request.max_tokens {
        0 => prompt.saturating_sub(1),
        most => context.min(prompt + most),
    }
}

/// Waiting requests of several clients, who take turns. Those of one client stay in their order.
pub(crate) struct Waiting<'a, T> {
    /// Clients that have requests here, the one whose turn it is in front.
    lanes: VecDeque<(u64, VecDeque<Task<'a, T>>)>,
}

impl<'a, T> Waiting<'a, T> {
    pub(crate) fn new() -> Self {
        Self { lanes: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|(_, tasks)| tasks.len()).sum()
    }

    pub(crate) fn push(&mut self, client: u64, task: Task<'a, T>) {
        match self.lanes.iter_mut().find(|(other, _)| *other == client) {
            Some((_, tasks)) => tasks.push_back(task),
            None => self.lanes.push_back((client, VecDeque::from([task]))),
        }
    }

    /// The next request of each client, in the order of their turns.
    pub(crate) fn heads(&self) -> impl Iterator<Item = &Task<'a, T>> {
        self.lanes.iter().filter_map(|(_, tasks)| tasks.front())
    }

    /// Takes the head of the lane with this number among [`Self::heads`]; its client has the last turn after that.
    pub(crate) fn take(&mut self, lane: usize) -> Option<Task<'a, T>> {
        let (client, mut tasks) = self.lanes.remove(lane)?;
        let task = tasks.pop_front();
        if !tasks.is_empty() {
            self.lanes.push_back((client, tasks));
        }
        task
    }

    /// Takes away the requests that nobody waits for any more.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&T) -> bool) {
        for (_, tasks) in &mut self.lanes {
            tasks.retain(|task| !is_gone(&task.ticket));
        }
        self.lanes.retain(|(_, tasks)| !tasks.is_empty());
    }

    /// Takes everything.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.lanes.drain(..).flat_map(|(_, tasks)| tasks).map(|task| task.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;

    fn task(ticket: u32) -> Task<'static, u32> {
        let request = Cow::Owned(Request::new(Prompt::Tokens(vec![1]), 1));
        Task { ticket, request, adapter: None, prompt: vec![1], cut: 0 }
    }

    #[test]
    fn clients_take_turns() {
        let mut waiting = Waiting::new();
        for (client, ticket) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            waiting.push(client, task(ticket));
        }
        waiting.forget(|&ticket| ticket == 11);
        assert_eq!(waiting.len(), 5);
        // Client 2 goes first where the head of client 1 has to wait for something.
        assert_eq!(waiting.heads().map(|task| task.ticket).collect::<Vec<_>>(), [10, 20, 30]);
        let order: Vec<u32> = [1, 0, 0, 0, 0].into_iter().filter_map(|at| waiting.take(at)).map(|t| t.ticket).collect();
        assert_eq!(order, [20, 10, 30, 21, 12]);
        assert_eq!(waiting.len(), 0);
    }
}
