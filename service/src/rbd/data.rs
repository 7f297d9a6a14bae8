//! Reading and writing an image.

use std::ffi::c_char;

use bytes::Bytes;

use super::sys::{self, RbdImage};
use super::{Error, ErrorKind, Image, Result, completion};

const READ: &str = "read";

impl Image {
    /// Fills the whole buffer from the image and gives it back.
    ///
    /// # Errors
    /// `InvalidArgument` when the range does not lie in the image.
    pub async fn read<B>(&self, offset: u64, mut buffer: B) -> Result<B>
    where
        B: AsMut<[u8]> + Send + 'static,
    {
        self.check_range(READ, offset, buffer.as_mut().len() as u64)?;
        self.unless_fenced(READ, self.read_unguarded(offset, buffer))
            .await
    }

    pub(super) async fn read_unguarded<B>(&self, offset: u64, mut buffer: B) -> Result<B>
    where
        B: AsMut<[u8]> + Send + 'static,
    {
        let length = buffer.as_mut().len();
        let (read, buffer) = completion::run(
            self.handle(),
            READ,
            buffer,
            |buffer| {
                let bytes = buffer.as_mut();
                (bytes.as_mut_ptr().cast::<c_char>(), bytes.len())
            },
            move |image, (bytes, length), completion| {
                // SAFETY: the image is open, and the bytes stay where they are, unused by anyone
                // else, until librbd calls back.
                unsafe {
                    sys::rbd_aio_read2(image, offset, length, bytes, completion, sys::BULK_TRANSFER)
                }
            },
        )
        .await?;
        if read < length {
            let reason = format!("only {read} of {length} bytes at {offset}");
            return Err(Error::new(ErrorKind::Io, READ, self.name(), reason));
        }
        Ok(buffer)
    }

    /// Writes data; it is on disk when [`Image::flush`] has returned.
    ///
    /// # Errors
    /// `InvalidArgument` when the range does not lie in the image; `ReadOnly`; `NoSpace`.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        const WRITE: &str = "write";
        self.check_writable(WRITE)?;
        self.check_range(WRITE, offset, data.len() as u64)?;
        // librbd only reads what the pointer leads to.
        let locate = |data: &mut Bytes| (data.as_ptr().cast::<c_char>().cast_mut(), data.len());
        self.run(
            WRITE,
            data,
            locate,
            move |image, (bytes, length), completion| {
                // SAFETY: the image is open, and the bytes stay unchanged where they are until librbd
                // calls back.
                unsafe {
                    sys::rbd_aio_write2(
                        image,
                        offset,
                        length,
                        bytes,
                        completion,
                        sys::BULK_TRANSFER,
                    )
                }
            },
        )
        .await
    }

    /// Makes a range read as zeros, whatever its alignment, and gives its space back.
    pub async fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        const ZERO: &str = "write zeroes to";
        self.check_writable(ZERO)?;
        self.check_range(ZERO, offset, length)?;
        let length = usize::try_from(length)
            .map_err(|_| Error::from_code(ZERO, self.name(), -i64::from(libc::EINVAL)))?;
        self.run(ZERO, (), no_bytes, move |image, _, completion| {
            // SAFETY: the image is open.
            unsafe {
                sys::rbd_aio_write_zeroes(image, offset, length, completion, 0, sys::BULK_TRANSFER)
            }
        })
        .await
    }

    /// Returns when everything whose write has completed is on disk.
    pub async fn flush(&self) -> Result<()> {
        self.run("flush", (), no_bytes, |image, _, completion| {
            // SAFETY: the image is open.
            unsafe { sys::rbd_aio_flush(image, completion) }
        })
        .await
    }

    async fn run<B, S>(
        &self,
        operation: &'static str,
        buffer: B,
        locate: fn(&mut B) -> (*mut c_char, usize),
        submit: S,
    ) -> Result<()>
    where
        B: Send + 'static,
        S: FnOnce(RbdImage, (*mut c_char, usize), sys::RbdCompletion) -> libc::c_int + Send,
    {
        let operation_done = completion::run(self.handle(), operation, buffer, locate, submit);
        self.unless_fenced(operation, operation_done)
            .await
            .map(drop)
    }

    /// librbd silently cuts what reaches over the end; that would be a write that never happened.
    fn check_range(&self, operation: &'static str, offset: u64, length: u64) -> Result<()> {
        let size = self.known_size();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                operation,
                self.name(),
                format!("{length} bytes at {offset} reach over its end at {size}"),
            )),
        }
    }
}

/// Where the bytes are of an operation that has none.
fn no_bytes(_: &mut ()) -> (*mut c_char, usize) {
    (std::ptr::null_mut(), 0)
}
