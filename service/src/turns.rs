//! A number of places that groups take fairly: whoever has the fewest is next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who shares places: the id of a project.
pub type Group = Arc<str>;

/// How many places there are; changeable while they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// For all together.
    pub all: usize,
    /// For one group.
    pub of_a_group: usize,
}

impl Places {
    /// More than anybody takes.
    pub const UNLIMITED: Self = Self {
        all: usize::MAX,
        of_a_group: usize::MAX,
    };
}

/// Places, shared by clones. A group that holds fewer than another is served before that, and within a
/// group it is first come, first served.
#[derive(Clone)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

struct State {
    places: Places,
    taken: usize,
    /// Counts by two how often a place was given away.
    served: u64,
    groups: HashMap<Group, Holding>,
}

#[derive(Default)]
struct Holding {
    taken: usize,
    /// When one was last given to it.
    served: u64,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A place, given back when dropped.
pub struct Turn {
    /// None once it has been given back.
    turns: Option<Turns>,
    group: Group,
}

impl Turns {
    /// So many places.
    pub fn new(places: Places) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                places,
                taken: 0,
                served: 0,
                groups: HashMap::new(),
            })),
        }
    }

    /// Changes how many places there are. Nobody loses one.
    pub fn set(&self, places: Places) {
        self.lock().places = places;
        self.serve();
    }

    /// Whether somebody of a group would have to wait.
    pub fn is_full(&self, group: &Group) -> bool {
        !self.lock().has_place(group)
    }

    /// Waits for a place. Whoever stops waiting has no place in the queue any more.
    pub async fn take(&self, group: &Group) -> Turn {
        let waiting = {
            let mut state = self.lock();
            if state.has_place(group) {
                state.give(group);
                return self.turn(group.clone());
            }
            let (sender, receiver) = oneshot::channel();
            // Whoever comes, perhaps again, is next but for those that wait already: before whoever was
            // served last, and behind all others.
            let newcomer = Holding {
                served: state.served.saturating_sub(1),
                ..Holding::default()
            };
            let holding = state.groups.entry(group.clone()).or_insert(newcomer);
            holding.waiting.push_back(sender);
            receiver
        };
        match waiting.await {
            Ok(turn) => turn,
            // Only this drops what waits, and it is here.
            Err(_) => std::future::pending().await,
        }
    }

    fn turn(&self, group: Group) -> Turn {
        Turn {
            turns: Some(self.clone()),
            group,
        }
    }

    /// Gives places to those whose turn it is.
    fn serve(&self) {
        loop {
            // Sent without the lock: a turn that nobody wants any more is given back at once.
            let Some((sender, group)) = self.lock().next() else {
                break;
            };
            if let Err(mut unwanted) = sender.send(self.turn(group)) {
                unwanted.turns = None;
                self.lock().give_back(&unwanted.group);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.lock().give_back(&self.group);
            turns.serve();
        }
    }
}

impl State {
    fn has_place(&self, group: &Group) -> bool {
        let taken = self.groups.get(group).map_or(0, |holding| holding.taken);
        self.taken < self.places.all && taken < self.places.of_a_group
    }

    fn give(&mut self, group: &Group) {
        self.taken += 1;
        self.served += 2;
        let holding = self.groups.entry(group.clone()).or_default();
        holding.taken += 1;
        holding.served = self.served;
    }

    fn give_back(&mut self, group: &Group) {
        self.taken -= 1;
        if let Some(holding) = self.groups.get_mut(group) {
            holding.taken -= 1;
            if holding.taken == 0 && holding.waiting.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Whose turn it is, if there is a place.
    fn next(&mut self) -> Option<(oneshot::Sender<Turn>, Group)> {
        let waiting = self.groups.iter().filter(|(_, it)| !it.waiting.is_empty());
        let (group, _) = waiting.min_by_key(|(_, it)| (it.taken, it.served))?;
        let group = group.clone();
        if !self.has_place(&group) {
            return None;
        }
        let sender = self.groups.get_mut(&group)?.waiting.pop_front()?;
        self.give(&group);
        Some((sender, group))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn places(all: usize, of_a_group: usize) -> Places {
        Places { all, of_a_group }
    }

    fn group(name: &str) -> Group {
        Group::from(name)
    }

    #[tokio::test]
    async fn a_hundred_of_one_do_not_keep_one_of_another_waiting() {
        let turns = Turns::new(places(2, usize::MAX));
        let (many, one) = (group("many"), group("one"));
        let held = [turns.take(&many).await, turns.take(&many).await];
        assert!(turns.is_full(&one));
        let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(turns.take(&many))).collect();
        for waiting in &mut crowd {
            assert!(waiting.now_or_never().is_none());
        }
        let mut late = Box::pin(turns.take(&one));
        assert!((&mut late).now_or_never().is_none());
        let [first, second] = held;
        drop(first);
        let late = late.now_or_never().expect("its turn");
        // Those that stopped waiting are passed over.
        drop(crowd.drain(..99));
        drop(second);
        drop(late);
        let last = crowd.pop().and_then(|last| last.now_or_never());
        drop(last.expect("its turn"));
        assert!(turns.lock().groups.is_empty());
    }

    #[tokio::test]
    async fn any_number_of_groups_take_turns_at_one_place() {
        let turns = Turns::new(places(1, 1));
        let groups = ["one", "one", "one", "two", "three", "four"];
        let (log, passes) = (Mutex::new(Vec::new()), 100);
        let each = groups.map(|name| {
            let (turns, log) = (&turns, &log);
            async move {
                let group = group(name);
                loop {
                    let _turn = turns.take(&group).await;
                    let length = {
                        let mut log = log.lock().expect("nobody panicked");
                        log.push(name);
                        log.len()
                    };
                    if length >= passes {
                        break;
                    }
                    // The others come to wait.
                    tokio::task::yield_now().await;
                }
            }
        });
        futures_util::future::join_all(each).await;
        let log = log.lock().expect("nobody panicked");
        for name in ["one", "two", "three", "four"] {
            let share = log[..passes].iter().filter(|passed| **passed == name);
            let share = share.count();
            assert!((24..=26).contains(&share), "{name}: {share} of {passes}");
        }
    }

    #[tokio::test]
    async fn a_group_may_have_less_than_all() {
        let turns = Turns::new(places(3, 2));
        let (one, other) = (group("one"), group("other"));
        let _held = [turns.take(&one).await, turns.take(&one).await];
        let mut third = Box::pin(turns.take(&one));
        assert!((&mut third).now_or_never().is_none());
        assert!(turns.take(&other).now_or_never().is_some());
        turns.set(places(3, 3));
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_turn_that_was_given_to_nobody_is_not_lost() {
        let turns = Turns::new(places(1, 1));
        let one = group("one");
        let held = turns.take(&one).await;
        let mut waiting = Box::pin(turns.take(&one));
        assert!((&mut waiting).now_or_never().is_none());
        drop(held);
        // It has its turn, and goes before it knows.
        drop(waiting);
        assert!(turns.take(&one).now_or_never().is_some());
        turns.set(places(0, 0));
        assert!(turns.take(&one).now_or_never().is_none());
    }

    proptest! {
        /// Whatever is taken, given back, given up and changed: never more than there is, and nobody
        /// waits for what is free.
        #[test]
        fn places_are_neither_lost_nor_given_twice(
            steps in proptest::collection::vec((0u8..4, 0usize..3, 0usize..4), 1..80),
        ) {
            let names = [group("a"), group("b"), group("c")];
            let turns = Turns::new(places(2, 2));
            let mut held: Vec<Turn> = Vec::new();
            let mut waiting = Vec::new();
            let mut most = places(2, 2);
            for (what, which, number) in steps {
                match what {
                    0 => {
                        let (turns, group) = (turns.clone(), names[which].clone());
                        waiting.push(Box::pin(async move { turns.take(&group).await }));
                    }
                    1 if !held.is_empty() => drop(held.swap_remove(number % held.len())),
                    2 if !waiting.is_empty() => drop(waiting.swap_remove(number % waiting.len())),
                    _ => {
                        most = places(number, which + 1);
                        turns.set(most);
                    }
                }
                let before = held.len();
                for mut take in std::mem::take(&mut waiting) {
                    match (&mut take).now_or_never() {
                        Some(turn) => held.push(turn),
                        None => waiting.push(take),
                    }
                }
                prop_assert!(held.len() <= before.max(most.all));
                let state = turns.lock();
                prop_assert_eq!(state.taken, held.len());
                let queue: usize = state.groups.values().map(|it| it.waiting.len()).sum();
                prop_assert!(queue >= waiting.len());
                for (group, holding) in &state.groups {
                    let wanted = holding.waiting.iter().any(|sender| !sender.is_closed());
                    prop_assert!(!wanted || !state.has_place(group));
                }
            }
        }
    }
}
