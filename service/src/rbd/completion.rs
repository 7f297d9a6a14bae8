//! librbd's asynchronous operations as futures.
//!
//! For each operation a box is handed to librbd that holds everything it needs: the buffer, the
//! image, and the sending end of a channel. librbd owns the box until it calls back, whatever
//! becomes of the future meanwhile; a dropped future is only a receiver that is gone.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::image::ImageHandle;
use super::sys::{self, RbdCompletion};
use super::{Error, ErrorKind, Result};

/// What librbd holds while an operation is under way.
struct Operation<B> {
    done: oneshot::Sender<(isize, B)>,
    buffer: B,
    image: Arc<ImageHandle>,
}

/// Submits an operation and waits for it; gives back its return value and the buffer.
///
/// `locate` gives the address and length of the buffer's bytes. `submit` receives the open image,
/// these two, and the completion, and makes the one `rbd_aio_*` call: the bytes neither move nor go
/// away until librbd has called back.
pub(super) async fn run<B, S>(
    image: &Arc<ImageHandle>,
    operation: &'static str,
    buffer: B,
    locate: fn(&mut B) -> (*mut c_char, usize),
    submit: S,
) -> Result<(usize, B)>
where
    B: Send + 'static,
    S: FnOnce(sys::RbdImage, (*mut c_char, usize), RbdCompletion) -> libc::c_int + Send,
{
    let receiver = start(image, operation, buffer, locate, submit)?;
    // The sender lives in librbd's box and is used or dropped only by the callback.
    let Ok((value, buffer)) = receiver.await else {
        return Err(Error::new(
            ErrorKind::Io,
            operation,
            image.name(),
            "librbd gave the operation up",
        ));
    };
    match usize::try_from(value) {
        Ok(count) => Ok((count, buffer)),
        Err(_) => Err(Error::from_code(operation, image.name(), value as i64)),
    }
}

/// The part without waiting, so that raw pointers never live across an `await`.
fn start<B, S>(
    image: &Arc<ImageHandle>,
    operation: &'static str,
    buffer: B,
    locate: fn(&mut B) -> (*mut c_char, usize),
    submit: S,
) -> Result<oneshot::Receiver<(isize, B)>>
where
    B: Send + 'static,
    S: FnOnce(sys::RbdImage, (*mut c_char, usize), RbdCompletion) -> libc::c_int,
{
    let (done, receiver) = oneshot::channel();
    let state = Box::into_raw(Box::new(Operation {
        done,
        buffer,
        image: Arc::clone(image),
    }));
    let mut completion: RbdCompletion = std::ptr::null_mut();
    // SAFETY: `complete::<B>` is the callback for exactly the box that `state` points to;
    // `completion` receives the new completion.
    let code = unsafe {
        sys::rbd_aio_create_completion(state.cast::<c_void>(), complete::<B>, &raw mut completion)
    };
    if code < 0 {
        // SAFETY: librbd did not take the box.
        drop(unsafe { Box::from_raw(state) });
        return Err(Error::from_code(operation, image.name(), i64::from(code)));
    }
    // SAFETY: nobody else has the box before the operation is submitted, and no reference to it is
    // left when it is: librbd may call back, and free the box, before `submit` returns.
    let bytes = locate(unsafe { &mut (*state).buffer });
    let code = submit(image.raw(), bytes, completion);
    if code < 0 {
        // SAFETY: an operation that was refused never calls back, so completion and box are still
        // ours.
        unsafe {
            sys::rbd_aio_release(completion);
            drop(Box::from_raw(state));
        }
        return Err(Error::from_code(operation, image.name(), i64::from(code)));
    }
    Ok(receiver)
}

/// Called by librbd, on one of its threads, when the operation is done.
unsafe extern "C" fn complete<B>(completion: RbdCompletion, argument: *mut c_void) {
    // SAFETY: `argument` is the box that `start` made for this completion, handed over with it;
    // librbd calls back exactly once.
    let state = unsafe { Box::from_raw(argument.cast::<Operation<B>>()) };
    // SAFETY: the completion is live until it is released here, once.
    let value = unsafe {
        let value = sys::rbd_aio_get_return_value(completion);
        sys::rbd_aio_release(completion);
        value
    };
    let Operation {
        done,
        buffer,
        image,
    } = *state;
    // Nobody may be listening any more; the buffer is then dropped here.
    let _ = done.send((value, buffer));
    // Last: should this be the image's last owner it is closed on a thread of its own.
    drop(image);
}
