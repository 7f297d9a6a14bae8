//! Whatever happens in whatever order: a backup with its volume, as events change them that arrive at random,
//! twice, and late.

use proptest::prelude::*;

use super::*;
use BackupStatus as B;
use VolumeStatus as V;

/// What arrives, or is found out.
#[derive(Debug, Clone, Copy)]
enum What {
    Create {
        service_up: bool,
    },
    Continue,
    CreateSucceeded,
    CreateFailed {
        may_be_complete: bool,
    },
    Restore,
    RestoreSucceeded,
    RestoreFailed,
    Delete {
        service_up: bool,
    },
    DeleteSucceeded,
    DeleteFailed,
    Import,
    ImportSucceeded,
    ImportFailed,
    Interrupted {
        encrypted: bool,
    },
    /// cinder-api asks for something: it changes the rows before it sends the request.
    Asks(B),
}

fn anything() -> impl Strategy<Value = What> {
    prop_oneof![
        any::<bool>().prop_map(|service_up| What::Create { service_up }),
        Just(What::Continue),
        Just(What::CreateSucceeded),
        any::<bool>().prop_map(|may_be_complete| What::CreateFailed { may_be_complete }),
        Just(What::Restore),
        Just(What::RestoreSucceeded),
        Just(What::RestoreFailed),
        any::<bool>().prop_map(|service_up| What::Delete { service_up }),
        Just(What::DeleteSucceeded),
        Just(What::DeleteFailed),
        Just(What::Import),
        Just(What::ImportSucceeded),
        Just(What::ImportFailed),
        any::<bool>().prop_map(|encrypted| What::Interrupted { encrypted }),
        Just(What::Asks(B::Restoring)),
        Just(What::Asks(B::Deleting)),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct World {
    backup: B,
    volume: V,
    previous: V,
    /// Whether the data of the backup are all there.
    complete: bool,
}

impl World {
    fn new(previous: V) -> Self {
        Self {
            backup: B::Creating,
            volume: V::BackingUp,
            previous,
            complete: false,
        }
    }

    fn event(&self, what: What) -> Option<Event<'_>> {
        let source = match self.volume == V::BackingUp {
            true => Source::Volume {
                status: &self.volume,
                previous: Some(&self.previous),
            },
            false => Source::Gone,
        };
        let held = Source::Volume {
            status: &self.volume,
            previous: Some(&self.previous),
        };
        let (target, reason) = (&self.volume, "reason");
        Some(match what {
            What::Create { service_up } => Event::Create {
                source: held,
                service_up,
            },
            What::Continue => Event::Continue,
            What::CreateSucceeded => Event::CreateSucceeded { source },
            What::CreateFailed { may_be_complete } => Event::CreateFailed {
                source,
                reason,
                may_be_complete: may_be_complete || self.complete,
            },
            What::Restore => Event::Restore { target },
            What::RestoreSucceeded => Event::RestoreSucceeded,
            What::RestoreFailed => Event::RestoreFailed,
            What::Delete { service_up } => Event::Delete { service_up },
            What::DeleteSucceeded => Event::DeleteSucceeded { source },
            What::DeleteFailed => Event::DeleteFailed { reason },
            What::Import => Event::Import,
            What::ImportSucceeded => Event::ImportSucceeded,
            What::ImportFailed => Event::ImportFailed { reason },
            What::Interrupted { encrypted } => Event::Interrupted {
                source: held,
                encrypted,
            },
            What::Asks(_) => return None,
        })
    }

    /// Whether somebody is at what ends so. Who only waits for a row has no way to write to it.
    fn is_at_it(&self, what: What) -> bool {
        match what {
            What::CreateSucceeded => self.backup == B::Creating,
            What::RestoreSucceeded | What::RestoreFailed => self.volume == V::RestoringBackup,
            What::DeleteSucceeded | What::DeleteFailed => self.backup == B::Deleting,
            // A backup is either made or imported.
            What::Import | What::ImportSucceeded | What::ImportFailed => false,
            _ => true,
        }
    }

    fn happens(&mut self, what: What) {
        if self.backup == B::Deleted || !self.is_at_it(what) {
            return;
        }
        if let What::Asks(wanted) = what {
            self.is_asked_for(wanted);
            return;
        }
        let change = match self
            .event(what)
            .map(|event| transition(self.backup, &event))
        {
            Some(Ok(change)) => change,
            Some(Err(refusal)) => *refusal.change,
            None => return,
        };
        match what {
            What::CreateSucceeded => self.complete = true,
            What::DeleteSucceeded | What::DeleteFailed => self.complete = false,
            _ => {}
        }
        self.backup = change.backup.unwrap_or(self.backup);
        if let Some(volume) = change.volume {
            self.volume = volume.status;
            self.previous = volume.previous.unwrap_or(self.previous.clone());
        }
    }

    /// As cinder-api does, and only from where it does.
    fn is_asked_for(&mut self, wanted: B) {
        match wanted {
            B::Restoring if self.backup == B::Available && self.volume == V::Available => {
                self.volume = V::RestoringBackup;
                self.backup = wanted;
            }
            B::Deleting if matches!(self.backup, B::Available | B::Error) => self.backup = wanted,
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn no_backup_is_available_without_its_data(
        happenings in proptest::collection::vec(anything(), 1..60),
    ) {
        let mut world = World::new(V::Available);
        for what in happenings {
            world.happens(what);
            let promised = matches!(world.backup, B::Available | B::Restoring);
            prop_assert!(world.complete || !promised, "{world:?} after {what:?}");
        }
    }

    #[test]
    fn what_ends_gives_the_volume_back(
        happenings in proptest::collection::vec(anything(), 1..60),
        attached in any::<bool>(),
    ) {
        let before = if attached { V::InUse } else { V::Available };
        let mut world = World::new(before.clone());
        for what in happenings {
            let held = world.volume == V::BackingUp;
            world.happens(what);
            let made = matches!(world.backup, B::Creating | B::Deleting);
            prop_assert!(made || world.volume != V::BackingUp, "{world:?} after {what:?}");
            if held && world.volume != V::BackingUp {
                prop_assert_eq!(&world.volume, &before);
            }
            let restored = world.backup == B::Restoring;
            prop_assert_eq!(world.volume == V::RestoringBackup, restored, "{:?}", what);
        }
    }

    #[test]
    fn what_arrives_again_changes_nothing_more(
        happenings in proptest::collection::vec(anything(), 1..60),
    ) {
        let mut world = World::new(V::Available);
        for what in happenings {
            world.happens(what);
            let once = world.clone();
            world.happens(what);
            if !matches!(what, What::Asks(_)) {
                prop_assert_eq!(&world, &once, "{:?}", what);
            }
        }
    }
}
