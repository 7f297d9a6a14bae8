//! What changed in an image between two points in time.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::error::{c_name, check};
use super::{Image, Result, sys, task};

/// A range that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// Whether there is data now; else the range reads as zeros.
    pub exists: bool,
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffQuery {
    /// The snapshot to compare with, or none: everything that is allocated.
    pub from: Option<String>,
    /// The bytes of the image to look at. For whole objects it must start at 0: older librbd
    /// reports wrong offsets otherwise (Ceph tracker 44483).
    pub range: Range<u64>,
    /// Also what a clone shows of its parent. librbd heeds it only without `from`.
    pub include_parent: bool,
    /// Only which objects changed, which the object map answers at once; else which bytes, which
    /// takes a request for each object in the range.
    pub whole_objects: bool,
}

impl Image {
    /// Walks over what changed from a snapshot to the point at which the image was opened.
    ///
    /// `visit` is called on a blocking thread, so it may block; the order of changes is not
    /// defined. When it breaks, the walk ends and this is no error. It ends as well, at the next change, when
    /// what is returned is dropped.
    ///
    /// # Errors
    /// `NotFound` when the image has no such snapshot; `InvalidArgument` when it is not older than
    /// the point at which the image was opened.
    pub async fn diff<F>(&self, query: DiffQuery, mut visit: F) -> Result<()>
    where
        F: FnMut(Change) -> ControlFlow<()> + Send + 'static,
    {
        const DIFF: &str = "compare";
        let object = match &query.from {
            Some(from) => format!("{} with snapshot {}", self.name(), from.escape_debug()),
            None => self.name().to_owned(),
        };
        let c_from = query
            .from
            .as_deref()
            .map(|name| c_name(DIFF, name))
            .transpose()?;
        let handle = Arc::clone(self.handle());
        let named = object.clone();
        // Set when nobody waits any more.
        let given_up = CancellationToken::new();
        let waiting = given_up.clone().drop_guard();
        let visit = move |change| match given_up.is_cancelled() {
            true => ControlFlow::Break(()),
            false => visit(change),
        };
        let walked = task::blocking(DIFF, &named, move || {
            let from = c_from
                .as_ref()
                .map_or(std::ptr::null(), |name| name.as_ptr());
            let walk = Walk(Mutex::new(State {
                visit,
                ended: false,
                panic: None,
            }));
            // SAFETY: the image is open, the name NUL-terminated (no snapshot: null), and `walk`,
            // which the callback for exactly this type receives, outlives the call.
            let code = unsafe {
                sys::rbd_diff_iterate2(
                    handle.raw(),
                    from,
                    query.range.start,
                    query.range.end.saturating_sub(query.range.start),
                    query.include_parent.into(),
                    query.whole_objects.into(),
                    on_change_of(&walk),
                    (&raw const walk).cast_mut().cast::<c_void>(),
                )
            };
            let state = walk.0.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Some(panic) = state.panic {
                resume_unwind(panic);
            }
            if state.ended {
                return Ok(());
            }
            check(DIFF, &object, code).map(drop)
        });
        let walked = self.unless_fenced(DIFF, walked).await;
        drop(waiting);
        walked
    }
}

impl Image {
    /// Whether anything changed from a snapshot to the point at which the image was opened: a walk that
    /// ends with the first change.
    ///
    /// # Errors
    /// As [`Image::diff`].
    pub async fn differs(&self, query: DiffQuery) -> Result<bool> {
        let found = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&found);
        let walk = self.diff(query, move |_| {
            note.store(true, Ordering::Relaxed);
            ControlFlow::Break(())
        });
        walk.await?;
        Ok(found.load(Ordering::Relaxed))
    }
}

/// What the callback works on. librbd promises neither one thread nor one call at a time, hence the
/// lock.
struct Walk<F>(Mutex<State<F>>);

struct State<F> {
    visit: F,
    /// Set once `visit` broke or panicked: librbd still calls a few times after it was told to stop.
    ended: bool,
    panic: Option<Box<dyn Any + Send>>,
}

/// The callback that receives just such a walk.
fn on_change_of<F>(_: &Walk<F>) -> unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int
where
    F: FnMut(Change) -> ControlFlow<()>,
{
    on_change::<F>
}

/// Called by librbd for each change.
unsafe extern "C" fn on_change<F>(
    offset: u64,
    length: usize,
    exists: c_int,
    argument: *mut c_void,
) -> c_int
where
    F: FnMut(Change) -> ControlFlow<()>,
{
    // SAFETY: `argument` is the `Walk<F>` of the call that is under way; it is only shared.
    let walk = unsafe { &*argument.cast_const().cast::<Walk<F>>() };
    let mut state = walk.0.lock().unwrap_or_else(PoisonError::into_inner);
    if state.ended {
        return -libc::ECANCELED;
    }
    let change = Change {
        offset,
        length: length as u64,
        exists: exists != 0,
    };
    // A panic must not unwind into librbd.
    match catch_unwind(AssertUnwindSafe(|| (state.visit)(change))) {
        Ok(ControlFlow::Continue(())) => 0,
        Ok(ControlFlow::Break(())) => {
            state.ended = true;
            -libc::ECANCELED
        }
        Err(panic) => {
            state.ended = true;
            state.panic = Some(panic);
            -libc::ECANCELED
        }
    }
}
